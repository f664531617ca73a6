"""QUEUE=rabbitmq: the same two functions as in `on_resque`, `open_queue` and `run_jobs`, on a quorum queue of RabbitMQ.

A message is confirmed when it is on disk, and acknowledged when its work is done. If the worker dies before, RabbitMQ
delivers the message again.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from pamqp.common import FieldTable

from asynckit.log_limit import OncePerSecond
from asynckit.tasks import background, end_tasks
from common.amqp.link import ANSWER_SECONDS, BROKEN, Link, describe
from common.mail.errors import CannotAccept
from common.processes.process import stop_requested

from .on_resque import Perform
from .outbox import NotEnqueued, Order, Send
from .settings import PictureSettings

QUEUE = "pictures"
DELIVERY_LIMIT = 20  # then RabbitMQ drops the message, and the sweep orders another job
AGAIN_SECONDS = 1.0  # before a failed message goes back, and between two connections

log = logging.getLogger(__name__)
often = OncePerSecond(log)


def new_link(settings: PictureSettings) -> Link:
    async def declare(channel: AbstractChannel) -> None:
        arguments: FieldTable = {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}
        await channel.declare_queue(QUEUE, durable=True, arguments=arguments)

    return Link(settings.amqp, declare)


@asynccontextmanager
async def open_queue(settings: PictureSettings) -> AsyncIterator[Send]:
    link = new_link(settings)

    async def send(order: Order) -> None:
        body = json.dumps(order.arguments()).encode()
        message = Message(body, message_id=str(order.id), delivery_mode=DeliveryMode.PERSISTENT)
        try:
            channel = await link.channel()
            await link.wait_while_blocked()
            async with asyncio.timeout(ANSWER_SECONDS):
                await channel.default_exchange.publish(message, QUEUE, mandatory=True)
        except (CannotAccept, *BROKEN) as error:
            await link.close()
            raise NotEnqueued(describe(error)) from None

    yield send
    await link.close()


async def run_jobs(settings: PictureSettings, perform: Perform) -> None:
    """Until this process is stopped: then take nothing new, finish within a limit, give back the rest."""
    consumer = Consumer(settings, perform)
    stop = asyncio.create_task(stop_requested())
    while not stop.done():
        try:
            await consumer.consume(stop)
        except (CannotAccept, *BROKEN) as error:
            often.warning("no connection: %s", describe(error))
            await consumer.link.close()
            await asyncio.wait([stop], timeout=AGAIN_SECONDS)
    log.info("stopping (%s)", stop.result())
    if consumer.running:
        await asyncio.wait(consumer.running, timeout=settings.drain_seconds)
    await end_tasks(consumer.running)
    await consumer.link.close()


class Consumer:
    def __init__(self, settings: PictureSettings, perform: Perform) -> None:
        self.link = new_link(settings)
        self.running: set[asyncio.Task[None]] = set()
        self._perform = perform
        self._prefetch = 2 * settings.resize_processes

    async def consume(self, stop: asyncio.Task[str]) -> None:
        """Until the process is stopped or the connection breaks."""
        channel, cancelled = await self.link.channel(), asyncio.Event()
        await channel.set_qos(prefetch_count=self._prefetch)
        (await channel.get_underlay_channel()).on_consumer_cancel_callbacks.add(lambda _: cancelled.set())
        queue = await channel.declare_queue(QUEUE, passive=True)
        tag = await queue.consume(self._take)
        ends = [asyncio.ensure_future(channel.closed()), asyncio.create_task(cancelled.wait())]
        await asyncio.wait([stop, *ends], return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()
        if not stop.done():
            raise CannotAccept("RabbitMQ has closed the connection, or cancelled the consumer")
        with suppress(*BROKEN):
            async with asyncio.timeout(ANSWER_SECONDS):
                await queue.cancel(tag)

    async def _take(self, message: AbstractIncomingMessage) -> None:
        """In a task of our own: aiormq cancels its tasks with the channel, in the middle of the work."""
        task = background(self._handle(message), "handling a message")
        self.running.add(task)
        task.add_done_callback(self.running.discard)

    async def _handle(self, message: AbstractIncomingMessage) -> None:
        try:
            await self._perform(json.loads(message.body))
        except Exception as error:
            often.warning("again in %g s: %s", AGAIN_SECONDS, describe(error))
            await asyncio.sleep(AGAIN_SECONDS)
            with suppress(*BROKEN):
                await message.nack(requeue=True)
        else:
            with suppress(*BROKEN):  # then RabbitMQ delivers it again, and the job finds that it is done
                await message.ack()
