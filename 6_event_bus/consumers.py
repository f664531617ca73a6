"""A consumer at work: claim, handle, commit; and what becomes of an event whose handler fails.

Order. New events are claimed in the order of the log, and their handlers begin in that order. With a window of one and
one process, each ends before the next begins. With more, several run at a time and may end in any order; and an event
that is tried again, or taken over from a dead process, comes behind younger ones. Whoever needs order among some of
the events only (those of one customer, say) needs a log for each.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from redis.exceptions import RedisError

from common.errors import SendError
from common.log import OncePerSecond
from common.redis_client import reason
from common.retry import backoff_seconds

from .events import BadEvent, Claimed, Event
from .handlers import BatchHandler, Handler, Sleeper, hopeless
from .log import Log

CLAIM_SECONDS = 5.0  # one claim waits for so long, then another one does
SLEEP_SECONDS = 1.0  # between two looks whether a handler is wanted
AGAIN_CAP_SECONDS = 0.5  # between two tries to reach a Redis that is away

log = logging.getLogger(__name__)
away_log = OncePerSecond(log)  # one for all consumers of a process: they lose the same Redis


class Consumer:
    """One handler in one process. Others of the same name, in other processes, share the events with it."""

    def __init__(self, events: Log, handler: Handler, attempts: int) -> None:
        self.handled = self.failed = 0
        self._events = events
        self._handler = handler
        self._attempts = attempts
        self._held: dict[int, Claimed] = {}  # by id(), for after a replay the same event may be held twice
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._stopping = False
        self._alone = 0  # the id() of what is handled alone
        self._again_log = OncePerSecond(log)

    def held(self) -> tuple[Claimed, ...]:
        """What has a lease that must be kept alive. Called by the heartbeat's thread."""
        return tuple(self._held.values())

    async def run(self) -> None:
        """Take events until `stop`."""
        if isinstance(self._handler, Sleeper):
            await self._sleep(self._handler)
        failures = 0
        while not self._stopping:
            room = await self._room()
            try:
                claimed = await self._events.claim(self._handler.name, room, CLAIM_SECONDS) if room else []
                failures = 0
            except RedisError as error:
                failures += 1
                away_log.warning("%s claims nothing: %s", self._handler.name, reason(error))
                await asyncio.sleep(backoff_seconds(failures, base=0.05, cap=AGAIN_CAP_SECONDS))
                continue
            except Exception:  # a bug, or data that nobody expected: a consumer must not stand still for ever
                log.exception("error while %s claimed", self._handler.name)
                await self._gather(SLEEP_SECONDS)
                continue
            self._begin(claimed)
            if isinstance(self._handler, BatchHandler) and claimed:
                await self._gather(self._handler.gather_seconds)

    async def _sleep(self, handler: Sleeper) -> None:
        while not self._stopping:
            with suppress(RedisError):  # the others say so in the log
                if await handler.wanted():
                    log.info("%s is wanted", handler.name)
                    return
            await self._gather(SLEEP_SECONDS)

    def stop(self) -> None:
        """Take nothing new."""
        self._stopping = True
        self._changed.set()

    async def _room(self) -> int:
        """Wait until there is room for a good part of the window, for one claim costs as much as many; 0 at the end."""
        while not self._stopping:
            room = self._handler.window - len(self._held)
            if room >= max(1, self._handler.window // 4) and self._alone not in self._held:
                return room
            self._changed.clear()
            await self._changed.wait()
        return 0

    async def _gather(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._stopping:
                    self._changed.clear()
                    await self._changed.wait()

    def _begin(self, claimed: Sequence[Claimed]) -> None:
        for one in claimed:
            self._held[id(one)] = one
            if one.alone:
                log.warning("%s: %s has outlived two workers, it goes alone", self._handler.name, one.position)
                self._alone = id(one)
        if isinstance(self._handler, BatchHandler) and len(claimed) > 1:
            self._start(self._handle_many(self._handler, claimed), claimed)
        else:
            for one in claimed:
                self._start(self._handle(one), [one])

    def _start(self, work: Coroutine[Any, Any, None], claimed: Sequence[Claimed]) -> None:
        def end(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled():  # else it is given back
                for one in claimed:
                    self._held.pop(id(one), None)
            self._changed.set()

        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(end)

    async def _handle_many(self, handler: BatchHandler, claimed: Sequence[Claimed]) -> None:
        """The same as `_handle` for many; what cannot be handled in this way goes the usual one."""
        try:
            events = [self._wanted(one) for one in claimed]
            await handler.handle_many([event for event in events if event is not None])
        except Exception:
            await asyncio.gather(*[self._handle(one) for one in claimed])
        else:
            self.handled += len(claimed)
            await self._tell(lambda: self._commit_many(claimed))

    def _wanted(self, claimed: Claimed) -> Event | None:
        """The event, if this handler wants it. Raises BadEvent."""
        if time.monotonic() > claimed.until or claimed.attempts > self._attempts:
            raise BadEvent("not to be handled with others")
        event = claimed.event()
        return event if self._wants(event) else None

    def _wants(self, event: Event) -> bool:
        return self._handler.events is None or event.name in self._handler.events

    async def _commit_many(self, claimed: Sequence[Claimed]) -> bool:
        return all(await self._events.commit_many(claimed))

    async def _handle(self, claimed: Claimed) -> None:
        """Commit after the work, not before: this line decides that nothing is lost, and that something may repeat."""
        if time.monotonic() > claimed.until:  # this process was asleep: somebody else has it by now
            return
        if claimed.attempts > self._attempts:
            await self._park(
                claimed, f"claimed {claimed.attempts - 1} times and never finished: it may kill its worker"
            )
            return
        try:
            event = claimed.event()
            if self._wants(event):
                await self._handler.handle(event)
        except Exception as error:
            await self._failed(claimed, error)
        else:
            self.handled += 1
            if not await self._tell(lambda: self._events.commit(claimed)):
                log.warning("%s: %s was taken over, it may be handled twice", self._handler.name, claimed.position)

    async def _failed(self, claimed: Claimed, error: Exception) -> None:
        what = f"{type(error).__name__}: {error}"
        if isinstance(error, RedisError):
            what = reason(error)
        elif not hopeless(error) and not isinstance(error, SendError):
            log.exception("error while %s handled %s", self._handler.name, claimed.position)
        if hopeless(error) or claimed.attempts >= self._attempts:
            await self._park(claimed, what)
            return
        pause = backoff_seconds(claimed.attempts)
        self._again_log.warning("%s: %s again in %.1f s: %s", self._handler.name, claimed.position, pause, what)
        await self._tell(lambda: self._events.put_back(claimed, pause))

    async def _park(self, claimed: Claimed, why: str) -> None:
        self.failed += 1
        log.error(
            "%s gave up %s after %d attempt(s): %.300s", self._handler.name, claimed.position, claimed.attempts, why
        )
        await self._tell(lambda: self._events.park(claimed, why))

    async def _tell(self, tell: Callable[[], Awaitable[bool]]) -> bool:
        """Tell the log, once more when Redis is away: the work is done, and the lease is in Redis still.

        False when the lease is known to be somebody else's.
        """
        failures = 0
        while True:
            try:
                ours = await tell()
            except RedisError as error:
                failures += 1
                away_log.warning("%s cannot commit: %s", self._handler.name, reason(error))
                await asyncio.sleep(backoff_seconds(failures, base=0.05, cap=AGAIN_CAP_SECONDS))
            else:
                return ours or failures > 0  # after an error it may have been done by the one before

    async def drain(self, seconds: float) -> None:
        """Wait so many seconds for what is in hand; then give back the rest, and nobody has to wait for its lease."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        left = tuple(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        unfinished = self.held()
        for claimed in unfinished:
            try:
                await self._events.put_back(claimed, 0.0, tried=False)
            except RedisError as error:
                away_log.warning("could not give back %s: %s", claimed.position, reason(error))
        if unfinished:
            log.warning("%s gave back %d unfinished", self._handler.name, len(unfinished))
