"""The worker: it claims jobs when slots are free, runs them concurrently, settles each one, and does housekeeping.

Four activities run at the same time: claiming, housekeeping, scaling, and a heartbeat in its own thread.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from redis.exceptions import RedisError

from asynckit.backoff import backoff_seconds
from asynckit.log_limit import OncePerSecond
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
PAUSE_CAP_SECONDS = 0.5  # between two tries while Redis is unreachable
IDLE_ASK_SECONDS = 5.0  # between two claims of an idle worker that no queue wakes
RELEASE_SECONDS = 2.0
BUG_PAUSE_SECONDS = 1.0
LINGER_SHARE = 4  # a fourth of the slots
LINGER_SECONDS = 0.003

log = logging.getLogger(__name__)


class Worker:
    """Runs the jobs of `queues`; earlier queues have priority.

    `definitions` maps a job's class to what it does. `scaling` limits how many jobs run at a time. All workers with the
    same `per_second` together start that many jobs of each queue per second. A job whose worker has died `crash_limit`
    times moves to the failed list. `hook` is called with each Event.
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
        limit_answers(
            connections.thread, lease_seconds / BEATS / 2
        )  # after a lost answer there must be time for more beats
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
        self._asking: list[Slot] = []  # free, and part of a claim call that is in flight
        self._running: dict[Slot, asyncio.Task[None]] = {}
        self._removing: set[asyncio.Task[None]] = set()
        self._surplus = 0  # slots to remove as soon as they are free
        self._alone = False  # the job that is running must run alone
        self._more = False  # the last claim found a job for every free slot
        self._linger: asyncio.TimerHandle | None = None
        self._lost = False
        self._paused = ""
        self._log = OncePerSecond(log)

    @property
    def busy(self) -> int:
        return len(self._running)

    @property
    def overrun_threads(self) -> int:
        """How many threads still run a job whose attempt has exceeded its time limit."""
        return self._executor.threads.overrun

    @property
    def slots(self) -> int:
        return len(self._running) + len(self._free) + len(self._asking) - self._surplus

    async def run(self, stop: Callable[[], Awaitable[str]]) -> None:
        """Work until `stop` returns the reason to stop. Then claim no more jobs, let the running jobs finish within
        `drain_seconds`, release the rest, and unregister.
        """
        asyncio.get_running_loop().set_task_factory(job_task)
        async with self._registration, self._notifier, self.delay:
            stopping = asyncio.ensure_future(stop())
            working = asyncio.create_task(self._run_activities())
            try:
                await asyncio.wait([stopping, working], return_when=asyncio.FIRST_COMPLETED)
                if working.done():  # only a bug ends it: raise the error, so that the supervisor restarts the process
                    working.result()
                log.info("stopping (%s)", stopping.result())
            finally:
                await end_tasks([working, stopping])
                await self._drain()
                self._executor.close()
                await self._leave()

    async def _run_activities(self) -> None:
        await self._register()
        tasks = [asyncio.create_task(run()) for run in (self._claim_loop, self.housekeeping.run, self._scale)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await end_tasks(tasks)

    async def _register(self) -> None:
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

    async def _claim_loop(self) -> None:
        failures = 0
        while True:
            self._wake.clear()
            if self._linger is not None:
                self._linger.cancel()
                self._linger = None
            if self._lost:
                await self._register_again()
            if not self._free or self._alone:
                self._more = True
                await self._wake.wait()
                continue
            self._asking, self._free = self._free, []  # so that scaling does not remove them during the call
            asked = time.monotonic()
            try:
                answer = await self._claims.take(self._asking, busy=bool(self._running))
            except LeaseLost:
                self._lose_lease()
            except RedisError as error:
                failures += 1
                self._free, self._asking = self._asking + self._free, []
                await self._outage("cannot claim jobs", error, failures)
            else:
                failures = 0
                if (
                    time.monotonic() - asked > self._lease_seconds / 2
                ):  # the lease may have ended: claiming again shows it
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
        """Wait until there may be a job: a queue is no longer empty, a throttle allows the next job, or a pause may
        have ended.

        The wait is limited. If a crash of Redis lost its last second, a job that was settled in that second is back in
        the record of a slot that is free now. No queue reports that; only the next claim returns the job.
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
        """Wait until no job is running: the next job must run alone."""
        self._more = True  # so that each freed slot wakes the claiming loop
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
        if self._more:  # also when this slot is removed: a job that must run alone may wait for this one to end
            self._claim_soon()

    def _claim_soon(self) -> None:
        """At once if enough slots are free; otherwise a few ms later, so that one call claims several jobs."""
        if len(self._free) * LINGER_SHARE >= self.slots:
            self._wake.set()
        elif self._linger is None:
            self._linger = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._wake.set)

    # Working

    async def _work(self, claim: Claim) -> None:
        try:
            await self._executor.perform(claim)
        except asyncio.CancelledError:  # the worker stops, or its lease has ended: then `release` changes nothing
            with suppress(RedisError, TimeoutError):
                async with asyncio.timeout(RELEASE_SECONDS):
                    await self._claims.release(claim)
        except Exception as error:  # a bug of ours: the job stays in its record, and this slot gets it again
            log.exception("error while settling a job")
            self._hook(Erred("a job could not be settled", error))
            await asyncio.sleep(BUG_PAUSE_SECONDS)
        finally:
            self._freed(claim.slot)

    # The lease

    def _lose_lease(self) -> None:
        """No heartbeat came in time, so other workers take over our jobs. Cancel them and register under a new name."""
        if not self._lost:
            self._lost = True
            log.warning("the lease has ended: other workers may take over the %d jobs running here", len(self._running))
        self._wake.set()

    async def _register_again(self) -> None:
        await end_tasks(self._running.values(), RELEASE_SECONDS)
        self._free, self._asking, self._surplus, self._alone, failures = [], [], 0, False, 0
        while self._lost:
            try:
                self._free = await self._registration.register_again()
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
        """Add slots at once; remove slots as soon as they are free. A slow job delays only its own slot's removal."""
        if change > 0:
            kept = min(change, self._surplus)
            self._surplus -= kept
            if change > kept:
                try:
                    slots = await self._registration.add(change - kept)
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
        except RedisError as error:  # their lease ends anyway
            self._log.warning("cannot unregister slots: %s", describe(error))

    # Shutdown

    async def _drain(self) -> None:
        """Let the running jobs finish within the limit, then release the rest to their queues."""
        if self._running:
            log.info("waiting up to %g s for %d jobs", self._drain_seconds, len(self._running))
            await asyncio.wait(self._running.values(), timeout=self._drain_seconds)
        left = list(self._running.values())
        if left:
            log.info("releasing %d jobs", len(left))
            await end_tasks(left, RELEASE_SECONDS)

    async def _leave(self) -> None:
        name = self._registration.host
        with suppress(RedisError, TimeoutError):
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._registration.remove(list(self._registration.slots.values()))
                await self.housekeeping.resign()
        if self._removing:
            await asyncio.wait(self._removing, timeout=RELEASE_SECONDS)
        self._hook(Ended(name))
        log.info("stopped")

    async def _outage(self, what: str, error: RedisError, failures: int) -> None:
        self._log.warning("%s: %s", what, describe(error))
        self._hook(Erred(what, error))
        await asyncio.sleep(backoff_seconds(failures, base=0.05, cap=PAUSE_CAP_SECONDS))
