"""What a consumer reports to the log after an attempt: committed, delayed, parked or given back."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from asynckit.backoff import backoff_seconds
from asynckit.batcher import Batcher
from asynckit.log_limit import REDIS, OncePerSecond

from .errors import LOG_CALL_ERRORS, describe
from .events import Claimed
from .interface import EventLog

GATHER_SECONDS = 0.003  # how long a commit waits for more events
RECONNECT_CAP_SECONDS = 0.5  # the longest pause between two calls of a Redis that is down

log = logging.getLogger(__name__)
redis_log = OncePerSecond(log, REDIS)  # shared by all consumers of a process, because they use the same Redis


class Outcomes:
    """Repeats each report while Redis is down: the work is done, and the lease is still in Redis."""

    def __init__(
        self,
        events: EventLog,
        consumer: str,
        are_enough: Callable[[int], bool] = lambda _: True,
        on_commit: Callable[[], None] = lambda: None,
    ) -> None:
        """`are_enough`: whether to commit this number of events now, or to wait GATHER_SECONDS for more. `on_commit` is
        called when `committing` has increased.
        """
        self.handled = self.failed = 0
        self.committing = 0
        """The number of events whose commit is being sent for the first time. Meanwhile, the consumer claims others."""
        self._on_commit = on_commit
        self._commits = Batcher(self._commit_batch, is_enough=are_enough, gather_seconds=GATHER_SECONDS)
        self._events = events
        self._consumer = consumer
        self._retry_log = OncePerSecond(log)

    async def commit(self, claimed: Claimed, *, unwanted: bool) -> None:
        await self._commits((claimed, unwanted))

    async def _commit_batch(self, done: Sequence[tuple[Claimed, bool]]) -> Sequence[None]:
        await self.commit_many([claimed for claimed, _ in done], sum(unwanted for _, unwanted in done))
        return [None] * len(done)

    async def commit_many(self, claimed: Sequence[Claimed], unwanted: int) -> None:
        """`unwanted`: how many of these events the handler does not ask for."""
        lost: list[str] = []
        first = len(claimed)  # 0 from the second try on

        async def commit() -> bool:
            nonlocal first
            try:
                ours = await self._events.commit_many(claimed)
            finally:
                self.committing, first = self.committing - first, 0
            lost[:] = [one.position for one, it_is in zip(claimed, ours, strict=True) if not it_is]
            return not lost

        self.handled += len(claimed)
        self.committing += len(claimed)
        self._on_commit()
        await self._report(lost, commit)
        with suppress(*LOG_CALL_ERRORS):  # delays expire
            await self._events.forget_delays(claimed)
        self._events.count_unwanted(self._consumer, unwanted)

    async def delay(self, claimed: Claimed, pause: float, failures: int, reason: str) -> None:
        if await self._report([claimed.position], lambda: self._events.delay(claimed, pause, failures)):
            line = "%s: %s is tried again in %.1f s: %s"
            self._retry_log.warning(line, self._consumer, claimed.position, pause, reason)

    async def park(self, claimed: Claimed, reason: str) -> None:
        where, attempts = claimed.position, claimed.attempts
        if await self._report([where], lambda: self._events.park(claimed, reason)):
            self.failed += 1
            with suppress(*LOG_CALL_ERRORS):  # delays expire
                await self._events.forget_delays([claimed])
            log.error("%s gave up %s after %d attempt(s): %.300s", self._consumer, where, attempts, reason)

    async def put_back(self, claimed: Claimed) -> None:
        """Make the event available at once, without counting the attempt."""
        await self._report([claimed.position], lambda: self._events.put_back(claimed, 0.0, tried=False))

    async def give_back(self, unfinished: Sequence[Claimed]) -> None:
        """Put these events back when the process stops. After the first error the rest waits for its leases to end."""
        given = 0
        try:
            for claimed in unfinished:
                given += await self._events.put_back(claimed, 0.0, tried=False)
        except LOG_CALL_ERRORS as error:
            line = "%s could not give back %d unfinished events: %s"
            log.warning(line, self._consumer, len(unfinished) - given, describe(error))
        if given:
            log.warning("%s gave back %d unfinished events", self._consumer, given)

    async def _report(self, positions: Sequence[str], report: Callable[[], Awaitable[bool]]) -> bool:
        """Returns False when another process certainly has the lease of these events."""
        failures = 0
        while True:
            try:
                ours = await report()
            except LOG_CALL_ERRORS as error:
                failures += 1
                redis_log.warning("%s cannot commit: %s", self._consumer, describe(error))
                await asyncio.sleep(backoff_seconds(failures, base=0.05, cap=RECONNECT_CAP_SECONDS))
            else:
                if ours or failures > 0:  # a report that raised an error may have reached Redis
                    return True
                for position in positions:
                    line = "%s: another process has taken over %s; it may be handled twice"
                    log.warning(line, self._consumer, position)
                return False
