"""The queue of chapter 5: jobs in Redis. `on_rabbitmq` has the same two functions, `open_queue` and `run_jobs`."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from redis.exceptions import RedisError

from asynckit.log_limit import OncePerSecond
from asynckit.redis_client import describe, redis_client
from common.processes.process import stop_requested
from resque import Definition, Queue, Scaling, Worker, open_connections
from resque.events import Event, Failed, Reenqueued
from resque.reports import explain
from resque.show import one_line

from .outbox import NotEnqueued, Order, Send
from .settings import PictureSettings

QUEUE, JOB = "pictures", "resizePicture"
ATTEMPTS = 1000  # with pauses of up to a minute: an outage of the store or of the database may take hours

log = logging.getLogger(__name__)
often = OncePerSecond(log)

Perform = Callable[[dict[str, str]], Awaitable[None]]


def definition(perform: Perform) -> Definition:
    """At most one job for each upload waits or runs at a time, however many the sweep orders."""
    return Definition(perform, attempts=ATTEMPTS, unique=lambda arguments: arguments["upload"])


async def _nothing(arguments: dict[str, str]) -> None:
    """The server enqueues jobs, and performs none."""


def log_event(event: Event) -> None:
    match event:
        case Reenqueued(_, _, _, error, seconds):
            often.warning("again in %.0f s: %s", seconds, one_line(explain(error)))
        case Failed(_, _, _, error):
            log.error("a job has failed: %s", one_line(explain(error)))


@asynccontextmanager
async def open_queue(settings: PictureSettings) -> AsyncIterator[Send]:
    async with redis_client(settings.redis) as redis:
        queue = Queue(redis, definitions={JOB: definition(_nothing)})

        async def send(order: Order) -> None:
            """The queue refuses a job that it has already, by its id or by its upload. Then there is nothing to do."""
            try:
                await queue.enqueue(QUEUE, JOB, [order.arguments()], str(order.id))
            except RedisError as error:
                raise NotEnqueued(describe(error)) from None

        yield send


async def run_jobs(settings: PictureSettings, perform: Perform) -> None:
    """Until this process is stopped."""
    slots = 2 * settings.resize_processes  # half of them wait for the store while the others' processes compute
    async with open_connections(settings.redis) as connections:
        worker = Worker(
            connections,
            [QUEUE],
            {JOB: definition(perform)},
            scaling=Scaling(slots, slots),
            lease_seconds=settings.lease_seconds,
            drain_seconds=settings.drain_seconds,
            hook=log_event,
        )
        await worker.run(stop_requested)
