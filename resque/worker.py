"""The worker: takes jobs as it has room for them, runs them side by side, settles each, and keeps house beside it.

It has four things to do at the same time: claim, housekeeping, scaling, and a heartbeat in a thread of its own.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from redis.exceptions import RedisError

from asynckit.backoff import backoff_seconds
from asynckit.log_limit import REDIS, OncePerSecond
from asynckit.redis_client import describe
from asynckit.tasks import background, end_tasks

from .claims import Answer, Claim, Claims, LeaseLost, Slot
from .connections import Connections, limit_answers
from .definition import Definitions
from .events import Ended, Erred, Hook, Paused, Polled, Resized, Started, guarded, ignore
from .executor import Executor
from .foreign import job_task
from .housekeeping import Housekeeping
from .keys import Keys
from .loop_delay import LoopDelay
from .notifier import Notifier
from .registration import BEATS, Registration
from .scaling import LOOK_SECONDS, Scaling
from .scripts import Scripts

ALONE_FROM = 2  # crashes; as SUSPECT in claim.lua
PAUSE_CAP_SECONDS = 0.5  # between two tries while Redis is away
IDLE_ASK_SECONDS = 5.0  # between two questions of a worker that nothing wakes
GIVE_BACK_SECONDS = 2.0
BUG_PAUSE_SECONDS = 1.0
LINGER_SHARE = 4  # a fourth of the slots
LINGER_SECONDS = 0.003

log = logging.getLogger(__name__)


class Worker:
    """Works off `queues`, the first one first.

    `definitions` say what the jobs do, by their class. `scaling` bounds how many run at a time. `per_second` jobs of
    each queue are started a second, by all workers that say so together. A job's worker may die `crash_limit` times,
    then the job is given up. `hook` is called with each Event.
    """

    def __init__(
        self,
        connections: Connections,
        queues: Sequence[str],
        definitions: Definitions,
        *,
        namespace: str = "resque",
        scaling: Scaling | None = None,
        lease_seconds: float = 10.0,
        drain_seconds: float = 10.0,
        crash_limit: int = 5,
        per_second: float | None = None,
        stuck_seconds: float = 3600.0,
        processes: int | None = None,
        hook: Hook = ignore,
    ) -> None:
        self.keys = Keys(namespace)
        self._queues = tuple(queues)
        self._hook = hook = guarded(hook)
        self._scaling = scaling or Scaling()
        self._drain_seconds = drain_seconds
        self._lease_seconds = lease_seconds
        limit_answers(connections.thread, lease_seconds / BEATS / 2)  # a lost answer must leave time for more beats
        scripts = Scripts(connections.commands)
        self._wake = asyncio.Event()
        self._claims = Claims(scripts, self.keys, queues, per_second)
        self._executor = Executor(self._claims, definitions, hook, self._outage, processes)
        self._notifier = Notifier(connections.waiting, self.keys, queues, self._wake)
        self._registration = Registration(
            scripts, connections.thread, self.keys, queues, lease_seconds, on_lost=self._lose_lease
        )
        self.housekeeping = Housekeeping(
            *(connections.commands, scripts, self.keys, hook),
            crash_limit=crash_limit,
            stuck_seconds=stuck_seconds,
            lease_seconds=lease_seconds,
        )
        self.delay = LoopDelay()
        self._free: list[Slot] = []
        self._asking: list[Slot] = []  # free, and on their way to Redis in a call
        self._running: dict[Slot, asyncio.Task[None]] = {}
        self._removing: set[asyncio.Task[None]] = set()
        self._surplus = 0  # slots to be given up as soon as they are free
        self._alone = False  # the job that runs must run alone
        self._more = False  # when last asked, there were jobs for every free slot
        self._linger: asyncio.TimerHandle | None = None
        self._lost = False
        self._paused = ""
        self._log = OncePerSecond(log, REDIS)

    @property
    def busy(self) -> int:
        return len(self._running)

    @property
    def left_behind(self) -> int:
        """Threads that still run a job whose attempt has outlived its time limit."""
        return self._executor.threads.left_behind

    @property
    def slots(self) -> int:
        return len(self._running) + len(self._free) + len(self._asking) - self._surplus

    async def run(self, stop: Callable[[], Awaitable[str]]) -> None:
        """Work until `stop` returns, which says why. Then take nothing new, finish what runs within `drain_seconds`,
        give the rest back, and leave no trace.
        """
        asyncio.get_running_loop().set_task_factory(job_task)
        async with self._registration, self._notifier, self.delay:
            stopping = asyncio.ensure_future(stop())
            living = asyncio.create_task(self._live())
            try:
                await asyncio.wait([stopping, living], return_when=asyncio.FIRST_COMPLETED)
                if living.done():  # by a bug: end in the light, where somebody starts us again
                    living.result()
                log.info("stopping (%s)", stopping.result())
            finally:
                await end_tasks([living, stopping])
                await self._drain()
                self._executor.close()
                await self._leave()

    async def _live(self) -> None:
        await self._get_registered()
        duties = [asyncio.create_task(duty()) for duty in (self._claim_for_ever, self.housekeeping.run, self._scale)]
        try:
            done, _ = await asyncio.wait(duties, return_when=asyncio.FIRST_COMPLETED)
            for duty in done:
                duty.result()
        finally:
            await end_tasks(duties)

    async def _get_registered(self) -> None:
        failures = 0
        while True:
            try:
                self._free = await self._registration.add(self._scaling.minimum)
            except RedisError as error:
                failures += 1
                await self._outage("cannot register", error, failures)
            else:
                self._hook(Started(self._free[0].name))
                return

    # Claiming

    async def _claim_for_ever(self) -> None:
        failures = 0
        while True:
            self._wake.clear()
            if self._linger is not None:
                self._linger.cancel()
                self._linger = None
            if self._lost:
                await self._begin_anew()
            if not self._free or self._alone:
                self._more = True
                await self._wake.wait()
                continue
            self._asking, self._free = self._free, []  # scaling keeps its hands off them meanwhile
            asked = time.monotonic()
            try:
                answer = await self._claims.take(self._asking, busy=bool(self._running))
            except LeaseLost:
                self._lose_lease()
            except RedisError as error:
                failures += 1
                self._free, self._asking = self._asking + self._free, []
                await self._outage("cannot take jobs", error, failures)
            else:
                failures = 0
                if time.monotonic() - asked > self._lease_seconds / 2:  # it may have ended: the same question tells
                    self._free, self._asking = self._asking + self._free, []
                    continue
                all_got_one = len(answer.claims) == len(self._asking)
                self._start(answer)
                if not all_got_one:
                    await self._wait(answer)

    def _start(self, answer: Answer) -> None:
        if answer.paused != self._paused:
            self._paused = answer.paused
            self._hook(Paused(answer.paused or None))
        self._hook(Polled(self._queues, len(answer.claims)))
        for claim in answer.claims:
            self._asking.remove(claim.slot)
            self._alone = self._alone or claim.crashes >= ALONE_FROM
            self._running[claim.slot] = asyncio.create_task(self._work(claim))
        self._free, self._asking = self._asking + self._free, []

    async def _wait(self, answer: Answer) -> None:
        """Until there may be something to take: a queue rings, a throttle lets go, a pause may be over.

        But not for ever. When a Redis has lost its last second, a job that was settled in it is back in the record of a
        slot that is free by now. No queue rings for that; whoever asks gets it.
        """
        self._more = False
        later = [seconds for seconds in answer.waits.values() if seconds > 0]
        timer = asyncio.get_running_loop().call_later(min([*later, IDLE_ASK_SECONDS]), self._wake.set)
        self._notifier.listen(queue for queue, seconds in answer.waits.items() if seconds == 0)
        if any(seconds < 0 for seconds in answer.waits.values()):
            await self._idle()
        else:
            await self._wake.wait()
        timer.cancel()

    async def _idle(self) -> None:
        """Until no job runs: the next one must run alone."""
        self._more = True  # each slot that is freed wakes us
        while self._running and not self._lost:
            self._wake.clear()
            await self._wake.wait()

    def _freed(self, slot: Slot) -> None:
        del self._running[slot]
        self._alone = False
        if self._lost:
            return
        if self._surplus:
            self._surplus -= 1
            self._remove([slot])
        else:
            self._free.append(slot)
        if self._more:  # also when this slot is given up: others may have been waiting for its job to end
            self._ask_soon()

    def _ask_soon(self) -> None:
        """At once if a good part of the slots is free; else a moment later, so that one call asks for several jobs."""
        if len(self._free) * LINGER_SHARE >= self.slots:
            self._wake.set()
        elif self._linger is None:
            self._linger = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._wake.set)

    # Working

    async def _work(self, claim: Claim) -> None:
        try:
            await self._executor.perform(claim)
        except asyncio.CancelledError:  # because of the end, or of a lost lease: then it is not ours to give
            with suppress(RedisError, TimeoutError):
                async with asyncio.timeout(GIVE_BACK_SECONDS):
                    await self._claims.give_back(claim)
        except Exception as error:  # a bug of ours: the job stays in its record, and is handed out to this slot again
            log.exception("error while settling a job")
            self._hook(Erred("a job could not be settled", error))
            await asyncio.sleep(BUG_PAUSE_SECONDS)
        finally:
            self._freed(claim.slot)

    # The lease

    def _lose_lease(self) -> None:
        """We were silent for too long. What we hold is done by others: stop, and begin anew under another name."""
        if not self._lost:
            self._lost = True
            log.warning("the lease has ended: other workers may take the %d jobs that run here", len(self._running))
        self._wake.set()

    async def _begin_anew(self) -> None:
        await end_tasks(self._running.values(), GIVE_BACK_SECONDS)
        self._free, self._asking, self._surplus, self._alone, failures = [], [], 0, False, 0
        while self._lost:
            try:
                self._free = await self._registration.begin_anew()
                self._lost = False
            except RedisError as error:
                failures += 1
                await self._outage("cannot register", error, failures)
        self._hook(Started(self._free[0].name))

    # Scaling

    async def _scale(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._lost:
                continue
            before = self.slots
            slots, why = self._scaling.decide(
                before, self.busy, self.delay.seconds, more=self._more and not self._alone
            )
            if slots != before and await self._resize(slots - before):
                self._hook(Resized(slots, before, why, self.delay.seconds))

    async def _resize(self, change: int) -> bool:
        """More slots at once; fewer, as soon as they are free. A slow job that ends late holds up nobody."""
        if change > 0:
            spared = min(change, self._surplus)
            self._surplus -= spared
            if change > spared:
                try:
                    slots = await self._registration.add(change - spared)
                except RedisError as error:
                    self._log.warning("cannot register more slots: %s", describe(error))
                    return False
                self._free += slots
            self._wake.set()
            return True
        idle, self._free = self._free[change:], self._free[:change]
        self._surplus += -change - len(idle)
        if idle:
            self._remove(idle)
        return True

    def _remove(self, slots: Sequence[Slot]) -> None:
        task = background(self._unregister(slots), "unregistering slots")
        self._removing.add(task)
        task.add_done_callback(self._removing.discard)

    async def _unregister(self, slots: Sequence[Slot]) -> None:
        try:
            await self._registration.remove(slots)
        except RedisError as error:  # then their lease ends by itself
            self._log.warning("cannot unregister slots: %s", describe(error))

    # The end

    async def _drain(self) -> None:
        """Finish what runs, within the limit; what is left goes back to its queue."""
        if self._running:
            log.info("waiting up to %g s for %d jobs", self._drain_seconds, len(self._running))
            await asyncio.wait(self._running.values(), timeout=self._drain_seconds)
        left = list(self._running.values())
        if left:
            log.info("giving %d jobs back", len(left))
            await end_tasks(left, GIVE_BACK_SECONDS)

    async def _leave(self) -> None:
        name = self._registration.host
        with suppress(RedisError, TimeoutError):
            async with asyncio.timeout(GIVE_BACK_SECONDS):
                await self._registration.remove(list(self._registration.slots.values()))
                await self.housekeeping.resign()
        if self._removing:
            await asyncio.wait(self._removing, timeout=GIVE_BACK_SECONDS)
        self._hook(Ended(name))
        log.info("stopped")

    async def _outage(self, what: str, error: RedisError, failures: int) -> None:
        self._log.warning("%s: %s", what, describe(error))
        self._hook(Erred(what, error))
        await asyncio.sleep(backoff_seconds(failures, base=0.05, cap=PAUSE_CAP_SECONDS))
