"""A consumer: it claims events, calls its handler, and commits. When the handler fails, it delays or parks the event.

Order. A consumer claims new events in the order of the log, and starts their handlers in that order. With a window of 1
and one process, each handler ends before the next one starts. With a larger window or more processes, several handlers
run at the same time and may end in any order. An event that is retried or taken over from a dead process comes after
younger ones. If some events need an order (those of one customer, for example), give them a log of their own.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from asynckit.backoff import Pause, backoff_seconds
from asynckit.error_text import line_of
from asynckit.isolation import attempt
from asynckit.tasks import background, end_tasks

from .early import put_back_early
from .errors import LOG_CALL_ERRORS, describe, is_redis_failure
from .events import Claimed, Event
from .handlers import BatchHandler, ErrorKind, Handler, OnDemandHandler, default_error_kind
from .interface import EventLog
from .log import BEGINNING
from .outcomes import RECONNECT_CAP_SECONDS, Outcomes, redis_log
from .suspects import Suspects

CLAIM_SECONDS = 5.0  # how long one claim waits for events
CHECK_SECONDS = 1.0  # between two checks whether a handler is needed, and after an unexpected error
FREE_SHARE = 4  # a quarter of the window is enough for one claim
DONE_SHARE = 3  # and a third for one commit: meanwhile the other events are being handled
PAUSE_CAP_SECONDS = 2.0  # the longest pause of a handler that needs a Redis that is down or full

log = logging.getLogger(__name__)


class Consumer:
    """Runs one handler in this process. Consumers with the same name in other processes share the events with it."""

    def __init__(
        self,
        events: EventLog,
        handler: Handler,
        attempts: int,
        pause: Pause = backoff_seconds,
        error_kind: Callable[[Exception], ErrorKind] = default_error_kind,
    ) -> None:
        """`error_kind` classifies the errors of the handler. It is not called for a RedisError."""
        self.name = handler.name
        self._events = events
        self._handler = handler
        self._batches = handler if isinstance(handler, BatchHandler) else None
        self._on_demand = handler if isinstance(handler, OnDemandHandler) else None
        self._attempts = attempts
        self._pause_after = pause
        self._error_kind = error_kind
        self._changed = asyncio.Event()
        self._outcomes = Outcomes(events, handler.name, self._are_enough, self._changed.set)
        self._failures: dict[str, int] = {}  # position -> how often an event that is held has failed
        self._held: dict[int, Claimed] = {}  # by id(), because after a replay the same event may be held twice
        self._tasks: set[asyncio.Task[None]] = set()
        self.suspects = Suspects(self._held, self._changed, attempts)
        self._stopping = False
        self._redis_failures = 0  # of the handler, since its last success
        self._paused_until = 0.0  # time.monotonic()

    @property
    def handled(self) -> int:
        return self._outcomes.handled

    @property
    def failed(self) -> int:
        return self._outcomes.failed

    def held(self) -> tuple[Claimed, ...]:
        """The events whose leases must be renewed. The heartbeat calls this in its own thread."""
        return tuple(self._held.values())

    async def run(self) -> None:
        """Claim and handle events until `stop`."""
        failures = 0
        while not self._stopping:
            if self._on_demand is not None:
                await self._wait_until_needed(self._on_demand)
            room = await self._room()
            try:
                claimed = await self._claim(room) if room else []
                failures = 0
            except LOG_CALL_ERRORS as error:
                failures += 1
                redis_log.warning("%s cannot claim events: %s", self._handler.name, describe(error))
                await self._pause(backoff_seconds(failures, base=0.05, cap=RECONNECT_CAP_SECONDS))
                continue
            except Exception:  # a bug or bad data: the consumer must go on
                log.exception("error while %s claimed", self._handler.name)
                await self._pause(CHECK_SECONDS)
                continue
            if self._batches is not None and claimed:
                await self._pause(self._batches.gather_seconds)

    async def _claim(self, room: int) -> Sequence[Claimed]:
        with self.suspects.claiming():
            claimed = await self._events.claim(self._handler.name, room, CLAIM_SECONDS)
            claimed = await put_back_early(self._events, self.name, claimed, self._failures)
            self._begin(claimed)
        return claimed

    async def _wait_until_needed(self, handler: OnDemandHandler) -> None:
        """Until then this is not a registered consumer, so the log keeps no events for it. It starts at the beginning.

        A RedisError is not logged here: the other consumers log it.
        """
        while not self._stopping:
            with suppress(*LOG_CALL_ERRORS):
                registered = handler.name in await self._events.consumers()
                if await handler.needed():
                    if not registered:
                        log.info("%s is needed and starts at the beginning of the log", handler.name)
                        await self._events.replay(handler.name, BEGINNING)
                    return
                if registered:
                    await self._events.leave(handler.name)
            await self._pause(CHECK_SECONDS)

    def stop(self) -> None:
        """Claim no more events."""
        self._stopping = True
        self._changed.set()

    async def _room(self) -> int:
        """Wait for free places in the window and return their number; 0 after `stop`.

        Waits for a quarter of the window, because one claim of many events costs no more than a claim of one. An event
        that is being committed no longer takes a place. While an event is handled alone, or the handler's Redis is
        down, waits until no event is held. While another consumer of this worker handles an event alone, waits until
        that has ended.
        """
        while not self._stopping:
            room, enough = self._handler.window - len(self._held), self._handler.window
            if self._redis_failures == 0 and not self.suspects.isolating:
                room += self._outcomes.committing
                enough = max(1, enough // FREE_SHARE)
            if (pause := self._paused_until - time.monotonic()) > 0:
                await self._pause(pause)
            elif room >= enough and not self.suspects.neighbour_isolates:
                return room
            else:
                self._changed.clear()
                await self._changed.wait()
        return 0

    async def _pause(self, seconds: float) -> None:
        """Sleep; `stop` ends the pause early."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._stopping:
                    self._changed.clear()
                    await self._changed.wait()

    def _begin(self, claimed: Sequence[Claimed]) -> None:
        """Start the handlers of these events."""
        # If the process was suspended after the claim, another process may have the lease now.
        claimed = [one for one in claimed if time.monotonic() <= one.until]
        self._held |= {id(one): one for one in claimed}
        if self.suspects.neighbour_isolates:  # it waits until they are put back
            for one in claimed:
                self._start(self._outcomes.put_back(one), [one])
            return
        ordinary: list[Claimed] = []
        isolated: list[Claimed] = []
        for one in claimed:
            if reason := self.suspects.reason_to_park(one, self._failures.get(one.position, 0)):
                self._start(self._outcomes.park(one, reason), [one])
            else:
                (isolated if one.alone else ordinary).append(one)
        if self._batches is not None and ordinary:
            self._start(self._handle_many(self._batches, ordinary), ordinary)
        else:
            for one in ordinary:
                self._start(self._handle(one), [one])
        if isolated:
            self.suspects.isolate(self._start(self._handle_alone(isolated), isolated))

    def _start(self, work: Coroutine[Any, Any, None], claimed: Sequence[Claimed]) -> asyncio.Task[None]:
        def end(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not (task.cancelled() and self._stopping):  # `drain` gives back the events of the tasks that it cancels
                for one in claimed:
                    self._held.pop(id(one), None)
                    self._failures.pop(one.position, None)
            self.suspects.tell()

        task = background(work, f"{self._handler.name} at {claimed[0].position}")
        self._tasks.add(task)
        task.add_done_callback(end)
        return task

    async def _handle_alone(self, isolated: Sequence[Claimed]) -> None:
        """One of these events may have killed two workers. Handle each one while this worker holds no other event."""
        await self.suspects.wait_until_alone(len(isolated))
        for one in isolated:
            log.warning("%s: two workers have died handling %s; it is handled alone", self._handler.name, one.position)
            await self._handle(one)

    async def _handle_many(self, handler: BatchHandler, claimed: Sequence[Claimed]) -> None:
        """Like `_handle` for a batch. A batch that fails is halved, until each event that fails is alone."""
        if len(claimed) == 1:
            return await self._handle(claimed[0])
        events: list[Event] = []

        async def handle() -> None:
            events.extend(filter(None, map(self._wanted, claimed)))
            await handler.handle_many(tuple(events))

        if (error := await attempt(handle)) is None:
            self._redis_failures = 0
            await self._outcomes.commit_many(claimed, len(claimed) - len(events))
        elif is_redis_failure(error):
            await self._redis_failed(claimed, error)
        else:
            middle = len(claimed) // 2
            await self._handle_many(handler, claimed[:middle])
            await self._handle_many(handler, claimed[middle:])

    async def _handle(self, claimed: Claimed) -> None:
        """Commit after the work, not before: no event is lost, and an event may be handled twice."""
        unwanted = False

        async def handle() -> None:
            nonlocal unwanted
            event = self._wanted(claimed)
            unwanted = event is None
            if event is not None:
                await self._handler.handle(event)

        if (error := await attempt(handle)) is None:
            self._redis_failures = 0
            await self._outcomes.commit(claimed, unwanted=unwanted)
        else:
            await self._failed(claimed, error)

    def _are_enough(self, done: int) -> bool:
        """Whether to commit this number of events now, or to wait for others that are being handled."""
        return done * DONE_SHARE >= self._handler.window or done >= len(self._held)

    def _wanted(self, claimed: Claimed) -> Event | None:
        """The event; None if the handler does not ask for it. Raises BadEvent."""
        event = claimed.event()
        return event if self._handler.events is None or event.name in self._handler.events else None

    async def _failed(self, claimed: Claimed, error: BaseException) -> None:
        if is_redis_failure(error):
            return await self._redis_failed([claimed], error)
        reason = line_of(error)
        kind = self._error_kind(error) if isinstance(error, Exception) else ErrorKind.BUG
        if kind is ErrorKind.BUG:
            log.error("error while %s handled %s", self._handler.name, claimed.position, exc_info=error)
        if kind is ErrorKind.PERMANENT or claimed.attempts >= self._attempts:
            return await self._outcomes.park(claimed, reason)
        failures = self._failures.get(claimed.position, 0) + 1
        await self._outcomes.delay(claimed, self._pause_after(claimed.attempts), failures, reason)

    async def _redis_failed(self, claimed: Sequence[Claimed], error: Exception) -> None:
        """Redis failed and not the events: put them back without counting an attempt, and pause this consumer."""
        now = time.monotonic()
        if now >= self._paused_until:  # several handlers fail at the same time and count as one failure
            self._redis_failures += 1
            self._paused_until = now + backoff_seconds(self._redis_failures, base=0.1, cap=PAUSE_CAP_SECONDS)
        redis_log.warning("%s pauses: %s", self._handler.name, describe(error))
        for one in claimed:
            await self._outcomes.put_back(one)

    async def drain(self, seconds: float) -> None:
        """Wait up to `seconds` for the events that are in flight, then give back the rest for other workers."""
        self._stopping = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        await end_tasks(self._tasks)
        await self._outcomes.give_back(self.held())
