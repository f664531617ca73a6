"""The queue of chapter 5: jobs in Redis. `on_rabbitmq` has the same two functions."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from redis.exceptions import RedisError

from asynckit.redis_client import describe, redis_client
from common.processes.process import stop_requested
from resque import Definition, Queue, Scaling, Worker, open_connections

from .outbox import NotEnqueued, Order, Send
from .settings import PictureSettings

QUEUE, JOB = "pictures", "resizePicture"
ATTEMPTS = 8  # after that the sweep orders another job

Perform = Callable[[dict[str, str]], Awaitable[None]]


@asynccontextmanager
async def open_queue(settings: PictureSettings) -> AsyncIterator[Send]:
    async with redis_client(settings.redis) as redis:
        queue = Queue(redis)

        async def send(order: Order) -> None:
            """The queue takes the same id once within an hour."""
            try:
                await queue.enqueue(QUEUE, JOB, [order.arguments()], str(order.id))
            except RedisError as error:
                raise NotEnqueued(describe(error)) from None

        yield send


async def run_jobs(settings: PictureSettings, perform: Perform) -> None:
    """Until this process is stopped."""
    definitions = {JOB: Definition(perform, attempts=ATTEMPTS)}
    slots = 2 * settings.resize_processes  # half of them wait for the store while the others' processes compute
    async with open_connections(settings.redis) as connections:
        worker = Worker(
            connections,
            [QUEUE],
            definitions,
            scaling=Scaling(slots, slots),
            lease_seconds=settings.lease_seconds,
            drain_seconds=settings.drain_seconds,
        )
        await worker.run(stop_requested)
