"""QUEUE=rabbitmq: the same two functions as in `on_resque`, `open_queue` and `run_jobs`, on RabbitMQ.

common/amqp has the queues and the worker's side: a message is confirmed when it is on disk, and acknowledged when its
work is done. RabbitMQ does not recognise a job that it has already, so a job that comes twice runs twice.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from asynckit.backoff import scheduled_pause
from common.amqp.consumer import Consumer, Handler
from common.amqp.link import BROKEN
from common.amqp.queues import WorkQueue, make_message
from common.mail.errors import CannotAccept, NoAnswer
from common.processes.process import stop_requested

from .on_resque import Perform
from .outbox import NotEnqueued, Order, Send
from .resize import OUTAGES
from .settings import PictureSettings

QUEUE = "pictures"
PAUSES = (1.0, 5.0, 30.0, 60.0)  # seconds between two attempts
ATTEMPTS = 6  # then the message is in the failed list, and the sweep orders another job


class Outage(Exception):
    """The job can be tried again."""


@asynccontextmanager
async def open_queue(settings: PictureSettings) -> AsyncIterator[Send]:
    queue = WorkQueue(settings.amqp, QUEUE, PAUSES)

    async def send(order: Order) -> None:
        try:
            await queue.publish(make_message(json.dumps(order.arguments()).encode(), str(order.id)))
        except CannotAccept as error:
            raise NotEnqueued(str(error)) from None
        except (NoAnswer, *BROKEN):
            raise NotEnqueued("RabbitMQ did not confirm the job") from None

    yield send
    await queue.link.close()


async def run_jobs(settings: PictureSettings, perform: Perform) -> None:
    """Until this process is stopped."""

    async def handle(body: bytes) -> None:
        try:
            await perform(json.loads(body))
        except OUTAGES as error:
            raise Outage(str(error)) from error

    handler = Handler(
        handle, (json.JSONDecodeError,), Outage, ATTEMPTS, pause=lambda attempt: scheduled_pause(PAUSES, attempt)
    )
    queue, prefetch = WorkQueue(settings.amqp, QUEUE, PAUSES), 2 * settings.resize_processes
    await Consumer(queue, handler, prefetch, settings.drain_seconds).run(stop_requested)
