"""The claiming loop: it claims jobs for the free slots and runs each one in its slot until it is settled."""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress

from asynckit.redis_client import CALL_ERRORS
from asynckit.tasks import end_tasks

from .claims import LINGER_SECONDS, Answer, Claim, Claims, LeaseLost
from .collector import Collector
from .events import Erred, Hook, Paused, Polled, Started
from .executor import Executor, Outage
from .notifier import Notifier
from .slots import Slots

IDLE_ASK_SECONDS = 5.0  # between two claims of an idle worker that no queue wakes
RELEASE_SECONDS = 2.0
BUG_PAUSE_SECONDS = 1.0

log = logging.getLogger(__name__)


class ClaimingLoop:
    """`wake` ends its waiting: the notifier sets it when a queue has a job, and Slots when it adds slots."""

    def __init__(
        self,
        claims: Claims,
        executor: Executor,
        notifier: Notifier,
        slots: Slots,
        wake: asyncio.Event,
        *,
        queues: Sequence[str],
        lease_seconds: float,
        hook: Hook,
        outage: Outage,
    ) -> None:
        self._claims = claims
        self._executor = executor
        self._notifier = notifier
        self._slots = slots
        self._wake = wake
        self._queues = tuple(queues)
        self._lease_seconds = lease_seconds
        self._hook = hook
        self._outage = outage
        self._collector = Collector()
        self._linger: asyncio.TimerHandle | None = None
        self._paused = ""
        self._failures = 0  # claim calls in a row that Redis did not answer

    async def run(self) -> None:
        """Claim jobs until cancelled."""
        self._collector.start(self._slots.count)
        try:
            await self._claim_forever()
        finally:
            self._collector.end()

    async def _claim_forever(self) -> None:
        slots = self._slots
        while True:
            self._wake.clear()
            if self._linger is not None:
                self._linger.cancel()
                self._linger = None
            if slots.lost:
                await self._register_again()
            if not (slots.free or slots.ending) or slots.alone:
                slots.more = True
                await self._wake.wait()
                continue
            answer = await self._claim()
            if answer is not None:
                is_full = slots.is_full_after(answer)
                self._start(answer)
                if not is_full:
                    await self._wait(answer)

    async def _claim(self) -> Answer | None:
        """Claim jobs for the free slots; None if that must be repeated."""
        slots = self._slots
        claiming, asked = slots.begin_claim(), time.monotonic()
        try:
            answer = await self._claims.take(claiming, busy=bool(slots.running))
        except LeaseLost:
            self.lose_lease()
            return None
        except CALL_ERRORS as error:
            self._failures += 1
            slots.end_claim()
            await self._outage("cannot claim jobs", error, self._failures)
            return None
        self._failures = 0
        # After a slow answer the lease may have ended: claiming again shows whether it has.
        if time.monotonic() - asked > self._lease_seconds / 2:
            slots.end_claim()
            return None
        return answer

    def _start(self, answer: Answer) -> None:
        if answer.paused != self._paused:
            self._paused = answer.paused
            self._hook(Paused(answer.paused or None))
        self._hook(Polled(self._queues, len(answer.claims)))
        for claim in filter(self._slots.can_occupy, answer.claims):
            self._slots.occupy(claim, asyncio.create_task(self._work(claim)))
        self._slots.end_claim()
        self._collector.adjust(len(self._slots.running))

    async def _wait(self, answer: Answer) -> None:
        """Wait until there may be a job: a queue is no longer empty, a throttle allows the next job, or a pause may
        have ended.

        The wait is limited. If a crash of Redis lost its last second, a job that was settled in that second is back in
        the record of a slot that is free now. No queue reports that; only the next claim returns the job.
        """
        self._slots.more = False
        later = [seconds for seconds in answer.waits.values() if seconds > 0]
        timer = asyncio.get_running_loop().call_later(min([*later, IDLE_ASK_SECONDS]), self._wake.set)
        self._notifier.listen(queue for queue, seconds in answer.waits.items() if seconds == 0)
        if any(seconds < 0 for seconds in answer.waits.values()):
            await self._idle()
        else:
            await self._wake.wait()
        timer.cancel()

    async def _idle(self) -> None:
        """Wait until no job is running: the next job must run alone."""
        self._slots.more = True  # so that each freed slot wakes this loop
        while self._slots.running and not self._slots.lost:
            self._wake.clear()
            await self._wake.wait()

    async def _work(self, claim: Claim) -> None:
        try:
            await self._executor.perform(claim)
        except asyncio.CancelledError:
            if self._slots.releasing:
                with suppress(*CALL_ERRORS, TimeoutError):
                    async with asyncio.timeout(RELEASE_SECONDS):
                        await self._claims.release(claim)
        except Exception as error:  # a bug of ours: the job stays in its record, and this slot gets it again
            log.exception("error while settling a job")
            self._hook(Erred("a job could not be settled", error))
            await asyncio.sleep(BUG_PAUSE_SECONDS)
        finally:
            self._slots.vacate(claim)
            # Also if the slot was removed: a job that must run alone may have waited for this one to end.
            if self._slots.more and not self._slots.lost:
                self._claim_soon()

    def _claim_soon(self) -> None:
        """At once if enough slots are free; otherwise a few ms later, so that one call claims several jobs."""
        if self._slots.are_enough_free():
            self._wake.set()
        elif self._linger is None:
            self._linger = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._wake.set)

    def lose_lease(self) -> None:
        """No heartbeat came in time, so other workers take over our jobs. Cancel them and register under a new name."""
        if not self._slots.lost:
            self._slots.lost = True
            count = len(self._slots.running)
            log.warning("the lease has ended: other workers may take over the %d jobs running here", count)
        self._wake.set()

    async def _register_again(self) -> None:
        await end_tasks(self._slots.running.values(), RELEASE_SECONDS)
        failures = 0
        while self._slots.lost:
            try:
                await self._slots.register_again()
            except CALL_ERRORS as error:
                failures += 1
                await self._outage("cannot register", error, failures)
        self._hook(Started(self._slots.free[0].name))
