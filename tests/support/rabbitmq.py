"""The embedded RabbitMQ as tests use it."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import aio_pika
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import ChannelNotFoundEntity

from common.services.rabbitmq import installed
from common.services.service import running
from tests.support.programs import START_SECONDS, Program, open_users_lock, wait_until

QUEUE, FAILED = "emailQueue", "emailQueue.failed"

INSTALLED = installed() is not None
REASON = "needs rabbitmq-server: apt-get install rabbitmq-server"

T = TypeVar("T")


class RabbitMq:
    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self.pid = pid
        self.url = f"amqp://guest:guest@127.0.0.1:{port}/"

    def ask(self, work: Callable[[AbstractChannel], Awaitable[T]]) -> T:
        """Do something on a channel of its own."""

        async def on_a_channel() -> T:
            async with await aio_pika.connect(self.url) as connection, connection.channel() as channel:
                return await work(channel)

        return asyncio.run(on_a_channel())

    def count(self, queue: str = QUEUE) -> int:
        """How many messages wait in it; 0 if it does not exist."""

        async def look(channel: AbstractChannel) -> int:
            return (await channel.declare_queue(queue, passive=True)).declaration_result.message_count or 0

        try:
            return self.ask(look)
        except ChannelNotFoundEntity:
            return 0

    def delete(self, queue: str) -> None:
        self.ask(lambda channel: channel.queue_delete(queue))

    def empty(self) -> None:
        """Remove what waits in the queues, if there are any."""

        async def purge(channel: AbstractChannel) -> None:
            for name in (QUEUE, FAILED):
                await (await channel.get_queue(name)).purge()

        with suppress(ChannelNotFoundEntity):
            self.ask(purge)

    def publish(self, body: bytes, **headers: str | int) -> None:
        """As a program in another language does it: without a message id."""
        message = aio_pika.Message(body, headers=dict(headers))
        self.ask(lambda channel: channel.default_exchange.publish(message, QUEUE))


def rabbitmq_of(data_dir: Path) -> RabbitMq:
    """The one that runs for this folder."""
    facts = wait_until(lambda: running(data_dir, "rabbitmq"), "RabbitMQ runs", START_SECONDS)
    return RabbitMq(facts["rabbitmq_port"], facts["pid"])


@contextmanager
def running_rabbitmq(data_dir: Path) -> Iterator[RabbitMq]:
    """RabbitMQ as a service of its own, on a free port."""
    with open_users_lock(data_dir, "rabbitmq"):
        settings = {"RABBITMQ_PORT": "0", "DATA_DIR": str(data_dir)}
        program = Program([sys.executable, "-m", "common.services.rabbitmq"], settings)
        try:
            program.wait_for_line("RabbitMQ listens", START_SECONDS)
            yield rabbitmq_of(data_dir)
        finally:
            program.stop()
