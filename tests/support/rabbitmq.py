"""The embedded RabbitMQ as tests use it."""

import asyncio
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import aio_pika
import psutil
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import ChannelNotFoundEntity
from trustme import LeafCert

from asynckit.tasks import end_tasks
from common.services.rabbitmq import NODE, installed
from common.services.service import running
from tests.support.programs import (
    LIMIT,
    ROOT,
    START_SECONDS,
    Program,
    Strategy,
    clean_environment,
    running_strategy,
    wait_until,
)
from tests.support.servers import Inbox, running_service

QUEUE, FAILED = "emailQueue", "emailQueue.failed"

INSTALLED = installed() is not None

REASON = "needs rabbitmq-server: apt-get install rabbitmq-server"

T = TypeVar("T")


class RabbitMq:
    def __init__(self, port: int, pid: int, folder: Path) -> None:
        self.port = port
        self.pid = pid
        self._folder = folder  # where its cookie is
        self.url = f"amqp://guest:guest@127.0.0.1:{port}/"

    def as_user(self, name: str, password: str, virtual_host: str) -> "RabbitMq":
        """The same node for another user. `password` is percent-encoded."""
        other = RabbitMq(self.port, self.pid, self._folder)
        other.url = f"amqp://{name}:{password}@127.0.0.1:{self.port}/{virtual_host}"
        return other

    def ask(self, work: Callable[[AbstractChannel], Awaitable[T]]) -> T:
        """Do something on a channel of its own."""

        async def on_a_channel() -> T:
            async with await aio_pika.connect(self.url) as connection, connection.channel() as channel:
                return await work(channel)

        return asyncio.run(on_a_channel())

    def ctl(self, *words: str) -> None:
        """Run rabbitmqctl. There is no epmd: the port of Erlang's distribution is in the node's command line."""
        command_line = psutil.Process(self.pid).cmdline()
        port = command_line[command_line.index("-erl_epmd_port") + 1]
        options = f"-start_epmd false -erl_epmd_port {port} -dist_listen false"
        environment = os.environ | {"HOME": str(self._folder), "RABBITMQ_CTL_ERL_ARGS": options}
        program = Path(installed() or "").with_name("rabbitmqctl")
        subprocess.run([program, "-n", NODE, *words], env=environment, check=True, capture_output=True, timeout=LIMIT)

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
    return RabbitMq(facts["rabbitmq_port"], facts["pid"], (data_dir / "rabbitmq").resolve())


@contextmanager
def tls_in_front_of(rabbitmq: RabbitMq, certificate: LeafCert) -> Iterator[int]:
    """A port that speaks TLS and passes everything on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    loop = asyncio.new_event_loop()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        writer.close()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, into = await asyncio.open_connection("127.0.0.1", rabbitmq.port)
        await asyncio.gather(copy(reader, into), copy(behind, writer))

    server = loop.run_until_complete(asyncio.start_server(pass_on, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.run_until_complete(end_tasks(asyncio.all_tasks(loop)))
        loop.close()


@contextmanager
def running_rabbitmq(data_dir: Path) -> Iterator[RabbitMq]:
    """RabbitMQ as a service of its own, on a free port."""
    with running_service("rabbitmq", data_dir):
        yield rabbitmq_of(data_dir)


WINDOW = 50  # the most emails that a worker holds at a time


@contextmanager
def queue(inbox: Inbox, tmp_path: Path, rabbitmq: RabbitMq | None = None, **environment: str) -> Iterator[Strategy]:
    """The strategy on this RabbitMQ, or on an embedded one of its own."""
    url = {"AMQP_URL": rabbitmq.url} if rabbitmq else {}
    settings = {"QUEUE": "rabbitmq", "SMTP_URL": inbox.smtp_url, "DRAIN_SECONDS": "2"} | url | environment
    with running_strategy("5_remote_queue", tmp_path, **settings) as strategy:
        yield strategy
    assert "Traceback" not in strategy.program.output


@contextmanager
def a_worker(inbox: Inbox, tmp_path: Path, rabbitmq: RabbitMq, **environment: str) -> Iterator[Program]:
    """A worker in a terminal of its own."""
    addresses = {"QUEUE": "rabbitmq", "AMQP_URL": rabbitmq.url, "SMTP_URL": inbox.smtp_url, "DATA_DIR": str(tmp_path)}
    program = Program(["make", "run-5"], addresses | {"ROLE": "worker", "DRAIN_SECONDS": "2"} | environment)
    try:
        program.wait_for_line("ready to send")
        yield program
    finally:
        program.stop()


def failed_command(rabbitmq: RabbitMq, *words: str) -> str:
    """What the command line prints."""
    done = _run_failed_command(rabbitmq, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused_command(rabbitmq: RabbitMq, *words: str) -> str:
    """What the command line says when it exits with 1."""
    done = _run_failed_command(rabbitmq, *words)
    assert done.returncode == 1
    return done.stderr


def _run_failed_command(rabbitmq: RabbitMq, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "5_remote_queue.rabbitmq", "failed", *words]
    environment = clean_environment() | {"AMQP_URL": rabbitmq.url}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
