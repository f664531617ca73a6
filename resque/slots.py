"""The slots of a worker: which are free and which run a job, and how their number changes."""

import asyncio
import logging
from collections.abc import Sequence

from asynckit.log_limit import REDIS, OncePerSecond
from asynckit.redis_client import CALL_ERRORS, describe
from asynckit.tasks import background

from .claims import Acknowledged, Answer, Claim, Slot
from .events import Hook, Resized
from .loop_delay import LoopDelay
from .registration import Registration
from .scaling import LOOK_SECONDS, Scaling

ALONE_FROM = 2  # crashes; as SUSPECT in prelude.lua
FREE_SHARE = 4  # a quarter of the slots is enough for one claim
DONE_SHARE = 3  # and a third for one acknowledgement: meanwhile the other jobs run
CLAIM_MOST = 200  # jobs in one call: the event loop starts them all before it does anything else

log = logging.getLogger(__name__)


class Slots(Acknowledged):
    """A slot is free, part of a claim call, or running a job. `wake` is set when there is a reason to claim.

    While a job is being acknowledged, its slot is also part of the next claim call, which Redis gets after the
    acknowledgement, usually in the same write. If the acknowledgement fails, the slot is not free when Redis answers
    the claim. If the answer has a job for this slot, the worker ignores the job, as if the answer had been lost. The
    worker claims again as soon as the slot is free, and the answer has the same job.
    """

    def __init__(self, registration: Registration, scaling: Scaling, hook: Hook, wake: asyncio.Event) -> None:
        self.free: list[Slot] = []
        self.claiming: list[Slot] = []  # free, and part of a claim call that is in flight
        self.ending: set[Slot] = set()  # running, but their jobs are being acknowledged
        self._claiming_ahead: set[Slot] = set()  # of these, the ones that are part of the claim call
        self._may_have_job: set[Slot] = set()  # these were still running when their claim call ended
        self.running: dict[Slot, asyncio.Task[None]] = {}
        self.surplus = 0  # slots to remove as soon as they are free
        self.alone = False  # the job that is running must run alone
        self.more = False  # the last claim found a job for every free slot
        self.lost = False  # the lease has ended
        self.releasing = False  # the worker is stopping, and releases the jobs that it cancels
        self.delay = LoopDelay()
        self._removing: set[asyncio.Task[None]] = set()
        self._registration = registration
        self._scaling = scaling
        self._hook = hook
        self._wake = wake
        self._log = OncePerSecond(log, REDIS)

    @property
    def count(self) -> int:
        return len(self.running) + len(self.free) + len(self.claiming) - self.surplus

    def are_enough_free(self) -> bool:
        """Whether to claim now, or to wait a few ms for more free slots: one call for many costs less than many."""
        return len(self.free) * FREE_SHARE >= self.count

    def are_enough_done(self, number: int) -> bool:
        """The same for acknowledging this number of jobs, which still occupy their slots."""
        return number * DONE_SHARE >= self.count or number >= len(self.running)

    async def register(self) -> None:
        """Register the minimum. Raises RedisError."""
        self.free = await self._registration.add(self._scaling.minimum)

    async def register_again(self) -> None:
        """Replace the slots after their lease has ended and their jobs have stopped. Raises RedisError."""
        self.free, self.claiming, self.surplus, self.alone = [], [], 0, False
        self.ending, self._claiming_ahead, self._may_have_job = set(), set(), set()
        self.free = await self._registration.register_again()
        self.lost = False

    def begin_claim(self) -> Sequence[Slot]:
        """Set free slots apart, so that scaling does not remove them during the call."""
        self.claiming, self.free = self.free[:CLAIM_MOST], self.free[CLAIM_MOST:]
        self._claiming_ahead, self.ending = self.ending, set()
        return [*self.claiming, *self._claiming_ahead]

    def end_claim(self) -> None:
        self.free, self.claiming = self.claiming + self.free, []
        self._may_have_job |= self._claiming_ahead
        self._claiming_ahead = set()

    def begin_acknowledge(self, slots: Sequence[Slot]) -> None:
        """If the queues have more jobs, claim the next ones for these slots."""
        if self.more and not (self.lost or self.alone or self.surplus):
            self.ending.update(slots)
            self._wake.set()

    def can_occupy(self, claim: Claim) -> bool:
        return claim.slot not in self.running

    def occupy(self, claim: Claim, task: asyncio.Task[None]) -> None:
        self.claiming.remove(claim.slot)
        self.alone = self.alone or claim.crashes >= ALONE_FROM
        self.running[claim.slot] = task

    def vacate(self, claim: Claim) -> None:
        """Free the slot of a job that has ended, or remove it if there are too many.

        A job that is cancelled while it is being acknowledged ends before the answer comes.
        """
        if claim.vacated:
            return
        claim.vacated, slot = True, claim.slot
        del self.running[slot]
        self.ending.discard(slot)
        self.alone = False
        if self.lost:
            return
        if slot in self._may_have_job:
            self._may_have_job.remove(slot)
            self._wake.set()
        if slot in self._claiming_ahead:
            self._claiming_ahead.remove(slot)
            self.claiming.append(slot)
        elif self.surplus:
            self.surplus -= 1
            self._remove([slot])
        else:
            self.free.append(slot)

    def is_full_after(self, answer: Answer) -> bool:
        return len(answer.claims) == len(self.claiming) + len(self._claiming_ahead)

    async def scale(self) -> None:
        """Adjust the number of slots until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self.lost:
                continue
            before, more = self.count, self.more and not self.alone
            count, why = self._scaling.decide(before, len(self.running), self.delay.seconds, more=more)
            if count != before and await self._resize(count - before):
                self._hook(Resized(count, before, why, self.delay.seconds))

    async def _resize(self, change: int) -> bool:
        """Add slots at once; remove slots as soon as they are free. A slow job delays only its own slot's removal."""
        if change > 0:
            return await self._grow(change)
        idle, self.free = self.free[change:], self.free[:change]
        self.surplus += -change - len(idle)
        if idle:
            self._remove(idle)
        return True

    async def _grow(self, change: int) -> bool:
        kept = min(change, self.surplus)
        self.surplus -= kept
        if change > kept:
            try:
                slots = await self._registration.add(change - kept)
            except CALL_ERRORS as error:
                self._log.warning("cannot register more slots: %s", describe(error))
                return False
            self.free += slots
        self._wake.set()
        return True

    def _remove(self, slots: Sequence[Slot]) -> None:
        task = background(self._unregister(slots), "unregistering slots")
        self._removing.add(task)
        task.add_done_callback(self._removing.discard)

    async def _unregister(self, slots: Sequence[Slot]) -> None:
        try:
            await self._registration.remove(slots)
        except CALL_ERRORS as error:  # their lease ends anyway
            self._log.warning("cannot unregister slots: %s", describe(error))

    async def removed(self, seconds: float) -> None:
        """Wait at most `seconds` until the removals in progress have ended."""
        if self._removing:
            await asyncio.wait(self._removing, timeout=seconds)
