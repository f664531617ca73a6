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

from redis.exceptions import DataError

from asynckit.backoff import Pause, backoff_seconds
from asynckit.log_limit import OncePerSecond
from asynckit.tasks import background, end_tasks

from .errors import LOG_ERRORS, describe
from .events import Claimed, Event
from .handlers import BatchHandler, ErrorKind, Handler, Sleeper, default_error_kind
from .interface import EventLog
from .log import BEGINNING, LONGEST_PAUSE

CRASH_LIMIT = 5  # an event whose workers have died more often is parked
EARLY_SECONDS = 0.05  # so much too early is in time
CLAIM_SECONDS = 5.0  # one claim waits for so long, then another one does
SLEEP_SECONDS = 1.0  # between two looks whether a handler is wanted
AGAIN_CAP_SECONDS = 0.5  # between two tries to reach a Redis that is away
REST_CAP_SECONDS = 2.0  # between two tries of a handler that needs a Redis that is away, or full

log = logging.getLogger(__name__)
away_log = OncePerSecond(log)  # one for all consumers of a process: they lose the same Redis


class Consumer:
    """One handler in one process. Others of the same name, in other processes, share the events with it."""

    def __init__(
        self,
        events: EventLog,
        handler: Handler,
        attempts: int,
        pause: Pause = backoff_seconds,
        error_kind: Callable[[Exception], ErrorKind] = default_error_kind,
    ) -> None:
        """`error_kind` says what an error of the handler means; it is not asked about a RedisError."""
        self.name = handler.name
        self.handled = self.failed = 0
        self._events = events
        self._handler = handler
        self._attempts = attempts
        self._pause_after = pause
        self._error_kind = error_kind
        # A killed worker takes all events with it that it holds. So an event that never finished is claimed a third
        # time at least: then it is handled alone, and only an event that was alone can be to blame.
        self._crashes = min(max(attempts, 2), CRASH_LIMIT)
        self._failures: dict[str, int] = {}  # position -> how often an event that is held has failed
        self._held: dict[int, Claimed] = {}  # by id(), for after a replay the same event may be held twice
        self._tasks: set[asyncio.Task[None]] = set()
        self._alone: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._stopping = False
        self._rests = 0  # in a row
        self._rest_until = 0.0  # time.monotonic()
        self._again_log = OncePerSecond(log)

    def held(self) -> tuple[Claimed, ...]:
        """What has a lease that must be kept alive. Called by the heartbeat's thread."""
        return tuple(self._held.values())

    async def run(self) -> None:
        """Take events until `stop`."""
        failures = 0
        while not self._stopping:
            if isinstance(self._handler, Sleeper):
                await self._sleep(self._handler)
            room = await self._room()
            try:
                claimed = await self._events.claim(self._handler.name, room, CLAIM_SECONDS) if room else []
                claimed = await self._due(claimed)
                failures = 0
            except LOG_ERRORS as error:
                failures += 1
                away_log.warning("%s claims nothing: %s", self._handler.name, describe(error))
                await self._pause(backoff_seconds(failures, base=0.05, cap=AGAIN_CAP_SECONDS))
                continue
            except Exception:  # a bug, or data that nobody expected: a consumer must not stand still for ever
                log.exception("error while %s claimed", self._handler.name)
                await self._pause(SLEEP_SECONDS)
                continue
            self._begin(claimed)
            if isinstance(self._handler, BatchHandler) and claimed:
                await self._pause(self._handler.gather_seconds)

    async def _sleep(self, handler: Sleeper) -> None:
        """Until it is wanted. Who sleeps is no consumer: nothing is kept for it, and it begins at the beginning."""
        while not self._stopping:
            with suppress(*LOG_ERRORS):  # the others say so in the log
                awake = handler.name in await self._events.consumers()
                if await handler.wanted():
                    if not awake:
                        log.info("%s is wanted", handler.name)
                        await self._events.replay(handler.name, BEGINNING)
                    return
                if awake:
                    await self._events.leave(handler.name)
            await self._pause(SLEEP_SECONDS)

    def stop(self) -> None:
        """Take nothing new."""
        self._stopping = True
        self._changed.set()

    async def _room(self) -> int:
        """Wait until there is room for a good part of the window, for one claim costs as much as many; 0 at the end.

        While something is handled alone, or Redis is away for the handler, wait until nothing is in hand.
        """
        while not self._stopping:
            room = self._handler.window - len(self._held)
            all_of_it = self._rests > 0 or (self._alone is not None and not self._alone.done())
            enough = self._handler.window if all_of_it else max(1, self._handler.window // 4)
            if (rest := self._rest_until - time.monotonic()) > 0:
                await self._pause(rest)
            elif room >= enough:
                return room
            else:
                self._changed.clear()
                await self._changed.wait()
        return 0

    async def _pause(self, seconds: float) -> None:
        """So many seconds, unless the end comes first."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._stopping:
                    self._changed.clear()
                    await self._changed.wait()

    async def _due(self, claimed: Sequence[Claimed]) -> list[Claimed]:
        """Those whose pause has ended. The others go back, and no attempt is counted.

        If Redis does not say, they are handled now: too early an attempt costs less than a lease.
        """
        again = [one for one in claimed if one.attempts > 1]
        try:
            delays = await self._events.delays(self.name, again)
        except LOG_ERRORS:
            return list(claimed)
        ready, early = [], []
        for one in claimed:
            seconds, failures = delays.get(one.position, (0.0, 0)) if one.attempts > 1 else (0.0, 0)
            if seconds > EARLY_SECONDS:
                early.append(self._events.put_back(one, min(seconds, LONGEST_PAUSE), tried=False))
            else:
                ready.append(one)
                if failures:
                    self._failures[one.position] = failures
        await asyncio.gather(*early, return_exceptions=True)  # what does not go back waits for the end of its lease
        return ready

    def _begin(self, claimed: Sequence[Claimed]) -> None:
        now = time.monotonic()
        claimed = [one for one in claimed if now <= one.until]  # else we were asleep: somebody else has it by now
        self._held |= {id(one): one for one in claimed}
        crowd: list[Claimed] = []
        suspects: list[Claimed] = []
        for one in claimed:
            if one.attempts - 1 - self._failures.get(one.position, 0) > self._crashes:
                why = f"claimed {one.attempts - 1} times and never finished: it may kill its worker"
                self._start(self._park(one, why), [one])
            else:
                (suspects if one.alone else crowd).append(one)
        if isinstance(self._handler, BatchHandler) and crowd:
            self._start(self._handle_many(self._handler, crowd), crowd)
        else:
            for one in crowd:
                self._start(self._handle(one), [one])
        if suspects:
            self._alone = self._start(self._handle_alone(suspects), suspects)

    def _start(self, work: Coroutine[Any, Any, None], claimed: Sequence[Claimed]) -> asyncio.Task[None]:
        def end(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled():  # else it is given back
                for one in claimed:
                    self._held.pop(id(one), None)
                    self._failures.pop(one.position, None)
            self._changed.set()

        task = background(work, f"{self._handler.name} at {claimed[0].position}")
        self._tasks.add(task)
        task.add_done_callback(end)
        return task

    async def _handle_alone(self, suspects: Sequence[Claimed]) -> None:
        """One may be what has killed two workers: it begins when nothing else is in hand that it could take along."""
        while len(self._held) > len(suspects):
            self._changed.clear()
            await self._changed.wait()
        for one in suspects:
            log.warning(
                "%s: two workers have died while handling %s; it is handled alone", self._handler.name, one.position
            )
            await self._handle(one)

    async def _handle_many(self, handler: BatchHandler, claimed: Sequence[Claimed]) -> None:
        """The same as `_handle` for many. What fails is halved, until what is at fault is alone and the rest done."""
        if len(claimed) == 1:
            await self._handle(claimed[0])
            return
        try:
            events = [self._wanted(one) for one in claimed]
            await handler.handle_many([event for event in events if event is not None])
        except Exception as error:
            if _redis_is_away(error):
                await self._put_off(claimed, error)
                return
            middle = len(claimed) // 2
            await self._handle_many(handler, claimed[:middle])
            await self._handle_many(handler, claimed[middle:])
        else:
            await self._commit(claimed, events.count(None), lambda: self._commit_many(claimed))

    async def _handle(self, claimed: Claimed) -> None:
        """Commit after the work, not before: this line decides that nothing is lost, and that something may repeat."""
        try:
            event = self._wanted(claimed)
            if event is not None:
                await self._handler.handle(event)
        except Exception as error:
            await self._failed(claimed, error)
        else:
            await self._commit([claimed], int(event is None), lambda: self._events.commit(claimed))

    def _wanted(self, claimed: Claimed) -> Event | None:
        """The event, if this handler wants it. Raises BadEvent."""
        event = claimed.event()
        return event if self._handler.events is None or event.name in self._handler.events else None

    async def _commit(self, claimed: Sequence[Claimed], unwanted: int, commit: Callable[[], Awaitable[bool]]) -> None:
        self._rests = 0
        self.handled += len(claimed)
        where = claimed[0].position if len(claimed) == 1 else f"one of {len(claimed)} from {claimed[0].position} on"
        await self._told(where, commit)
        with suppress(*LOG_ERRORS):  # they go away by themselves
            await self._events.forget_delays(claimed)
        self._events.count_unwanted(self._handler.name, unwanted)

    async def _commit_many(self, claimed: Sequence[Claimed]) -> bool:
        return all(await self._events.commit_many(claimed))

    async def _failed(self, claimed: Claimed, error: Exception) -> None:
        if _redis_is_away(error):
            await self._put_off([claimed], error)
            return
        what = f"{type(error).__name__}: {error}"
        kind = self._error_kind(error)
        if kind is ErrorKind.BUG:
            log.exception("error while %s handled %s", self._handler.name, claimed.position)
        if kind is ErrorKind.PERMANENT or claimed.attempts >= self._attempts:
            await self._park(claimed, what)
            return
        failures = self._failures.get(claimed.position, 0) + 1
        pause = self._pause_after(claimed.attempts)
        if await self._told(claimed.position, lambda: self._events.delay(claimed, pause, failures)):
            self._again_log.warning("%s: %s again in %.1f s: %s", self._handler.name, claimed.position, pause, what)

    async def _put_off(self, claimed: Sequence[Claimed], error: Exception) -> None:
        """Redis is at fault and no event: that was no attempt, and this consumer claims nothing for a moment."""
        now = time.monotonic()
        if now >= self._rest_until:  # else they have failed beside the one that has said so
            self._rests += 1
            self._rest_until = now + backoff_seconds(self._rests, base=0.1, cap=REST_CAP_SECONDS)
        away_log.warning("%s handles nothing for a moment: %s", self._handler.name, describe(error))
        for one in claimed:
            await self._put_back(one, 0.0, tried=False)

    async def _put_back(self, claimed: Claimed, pause: float, *, tried: bool = True) -> bool:
        return await self._told(claimed.position, lambda: self._events.put_back(claimed, pause, tried=tried))

    async def _park(self, claimed: Claimed, why: str) -> None:
        where, attempts = claimed.position, claimed.attempts
        if await self._told(where, lambda: self._events.park(claimed, why)):
            self.failed += 1
            with suppress(*LOG_ERRORS):
                await self._events.forget_delays([claimed])
            log.error("%s gave up %s after %d attempt(s): %.300s", self._handler.name, where, attempts, why)

    async def _told(self, where: str, tell: Callable[[], Awaitable[bool]]) -> bool:
        """Tell the log, once more when Redis is away: the work is done, and the lease is in Redis still.

        False when the lease is known to be somebody else's.
        """
        failures = 0
        while True:
            try:
                ours = await tell()
            except LOG_ERRORS as error:
                failures += 1
                away_log.warning("%s cannot commit: %s", self._handler.name, describe(error))
                await asyncio.sleep(backoff_seconds(failures, base=0.05, cap=AGAIN_CAP_SECONDS))
            else:
                if ours or failures > 0:  # after an error it may have been done by the one before
                    return True
                log.warning("%s: %s was taken over, it may be handled twice", self._handler.name, where)
                return False

    async def drain(self, seconds: float) -> None:
        """Wait so many seconds for what is in hand; then give back the rest, and nobody has to wait for its lease."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        await end_tasks(self._tasks)
        left, given = self.held(), 0
        try:
            for claimed in left:
                given += await self._events.put_back(claimed, 0.0, tried=False)
        except LOG_ERRORS as error:  # the next one would not get through either; all leases end by themselves
            log.warning(
                "%s could not give back %d unfinished: %s", self._handler.name, len(left) - given, describe(error)
            )
        if given:
            log.warning("%s gave back %d unfinished", self._handler.name, given)


def _redis_is_away(error: Exception) -> bool:
    """Whether Redis is down, full or the wrong kind. A DataError is the handler's own mistake: Redis was not asked."""
    return isinstance(error, LOG_ERRORS) and not isinstance(error, DataError)
