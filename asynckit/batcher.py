"""Group commit: calls of one tick of the event loop, and calls made during a commit, are committed together.

So fifty requests that arrive together cost one round trip and one fsync, not fifty. A single call is sent in the same
tick: it never waits for a batch to fill. Databases write their logs in the same way (DeWitt et al., "Implementation
Techniques for Main Memory Database Systems", 1984).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from redis.exceptions import TimeoutError as RedisTimeoutError

from asynckit.connections import NotSent

Item = TypeVar("Item")
Result = TypeVar("Result")


class NotTried(NotSent, RedisTimeoutError):
    """The batch before this call got no answer in time, so this call was not tried."""


class Batcher(Generic[Item, Result]):
    """Call it with one item; `commit` is called with many and returns as many results, in the same order.

    One commit at a time. A call waits for at most two commits before its own, unless more than `largest` calls wait.
    When `commit` raises, every call of that batch raises the same error. After a TimeoutError (Python's or redis-py's),
    the waiting calls raise NotTried. Otherwise each batch would take as long, and more and more calls would wait. A
    result that is an exception is raised only by its own call.

    With `is_enough`, a batch waits for more calls while `is_enough(number of its calls)` is false, but at most for
    `gather_seconds`. Use it where more calls certainly come soon: fewer and larger commits cost less.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        largest: int = 1000,
        *,
        is_enough: Callable[[int], bool] = lambda _: True,
        gather_seconds: float = 0.0,
    ) -> None:
        self._commit = commit
        self._largest = largest  # items in one commit, so that one script or one write stays small
        self._is_enough = is_enough
        self._gather_seconds = gather_seconds
        self._gathered: asyncio.Future[None] | None = None  # done when the next batch is large enough
        self._items: list[Item] = []
        self._futures: list[asyncio.Future[Result]] = []
        self._task: asyncio.Task[None] | None = None

    def __call__(self, item: Item) -> asyncio.Future[Result]:
        """Put the item into the next batch. The future has its result, or the error of its batch."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._items.append(item)
        self._futures.append(future)
        if self._task is None:
            self._task = loop.create_task(self._commit_all())
        elif self._gathered is not None and self._is_enough(len(self._items)):
            _end(self._gathered)
        return future

    async def _commit_all(self) -> None:
        before = 0  # calls in the previous batch
        try:
            while self._items:
                if not self._is_enough(len(self._items)):
                    await self._gather()
                size = min(self._size_after(before), self._largest)
                items, self._items = self._items[:size], self._items[size:]
                futures, self._futures = self._futures[:size], self._futures[size:]
                await self._commit_one(items, futures)
                before = len(items)
        finally:
            self._task = None

    def _size_after(self, before: int) -> int:
        """The size of the next batch: at most half of the sum of the waiting calls and those of the previous batch.

        A caller that waits for its result before its next call is in one of two batches, which take turns. If one batch
        has nearly all callers, this process has nothing to do during its commit. So both are kept the same size.
        """
        waiting = len(self._items)
        return (before + waiting + 1) // 2 if before and not self._gather_seconds else waiting

    async def _gather(self) -> None:
        loop = asyncio.get_running_loop()
        self._gathered = loop.create_future()
        timer = loop.call_later(self._gather_seconds, _end, self._gathered)
        try:
            await self._gathered
        finally:
            timer.cancel()
            self._gathered = None

    async def _commit_one(self, items: list[Item], futures: list[asyncio.Future[Result]]) -> None:
        try:
            results = await self._commit(items)
            if len(results) != len(items):
                raise ValueError(f"{len(results)} results for {len(items)} items")
        except asyncio.CancelledError:
            for future in (*futures, *self._futures):
                future.cancel()
            self._items, self._futures = [], []
            raise
        except Exception as error:
            if isinstance(error, (TimeoutError, RedisTimeoutError)):
                _fail(self._futures, NotTried(f"not tried: {error or 'no answer'} to the calls before"))
                self._items, self._futures = [], []
            _fail(futures, error)
        else:
            for future, result in zip(futures, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)


def _fail(futures: Sequence[asyncio.Future[Result]], error: Exception) -> None:
    for future in futures:
        if not future.done():  # its caller may have cancelled it
            future.set_exception(error)


def _end(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
