"""Handlers that remember their events, and a log to consume them from."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from asynckit.redis_client import redis_client
from eventlog import consumers, events, partitions
from eventlog.handlers import ErrorKind, default_error_kind
from tests.support.programs import LIMIT, a_name
from tests.support.servers import Valkey


class Permanent(Exception):
    pass


class Listener:
    """A handler that remembers its events and calls `act` for each."""

    name = "listener"
    events: frozenset[str] | None = None
    window = 10

    def __init__(self, act: Callable[[int], object] = lambda _: None) -> None:
        self.began: list[int] = []
        self.ended: list[int] = []
        self._act = act

    async def handle(self, event: Any) -> None:
        number = event.data["number"]
        self.began.append(number)
        result = self._act(number)
        if asyncio.iscoroutine(result):
            await result
        self.ended.append(number)


class BatchListener(Listener):
    """The same for batches."""

    gather_seconds = 0.0

    async def handle_many(self, events: Sequence[Any]) -> None:
        for event in events:
            await self.handle(event)


@asynccontextmanager
async def a_log(valkey: Valkey, lease_seconds: float) -> AsyncIterator[Any]:
    async with redis_client(valkey.url) as redis, partitions.PartitionedLog(redis, lease_seconds) as log:
        yield log


async def append(log: Any, *numbers: int, name: str = "x") -> None:
    for number in numbers:
        await log.append(events.Event(f"<{a_name()}@x>", name, {"number": number}))


def error_kind(error: Exception) -> ErrorKind:
    return ErrorKind.PERMANENT if isinstance(error, Permanent) else default_error_kind(error)


@asynccontextmanager
async def consuming(log: Any, handler: Any, attempts: int = 3) -> AsyncIterator[Any]:
    consumer = consumers.Consumer(log, handler, attempts, error_kind=error_kind)
    running = asyncio.create_task(consumer.run())
    yield consumer
    consumer.stop()
    log.stop_waiting()
    await asyncio.wait_for(running, LIMIT)
    await consumer.drain(1.0)


async def all_done(log: Any, handled: int, parked: int = 0) -> None:
    async def done() -> bool:
        lag = await log.lag("listener")
        return bool((lag.handled, lag.waiting, lag.pending, lag.parked) == (handled, 0, 0, parked))

    async with asyncio.timeout(LIMIT):
        while not await done():  # noqa: ASYNC110  Redis does not notify the test
            await asyncio.sleep(0.02)


async def until_counted(log: Any, **figures: int) -> None:
    """Wait for these counts, which are written a moment later."""

    async def counted() -> bool:
        lag = await log.lag("listener")
        return {name: getattr(lag, name) for name in figures} == figures

    async with asyncio.timeout(LIMIT):
        while not await counted():  # noqa: ASYNC110  Redis does not notify the test
            await asyncio.sleep(0.02)
