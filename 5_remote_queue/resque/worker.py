"""The worker: takes jobs as it has room for them, runs them side by side, settles each, and keeps house beside it.

It has four things to do at the same time: claim, housekeeping, scaling, and a heartbeat in a thread of its own.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from typing import Any

from redis.exceptions import RedisError

from common.log import OncePerSecond
from common.redis_client import reason
from common.retry import backoff_seconds
from common.tasks import end_tasks

from .claims import Answer, Claim, Claims, LeaseLost, Slot
from .connections import Connections
from .definition import Definition, Definitions, Permanent, WaitAndRepeat
from .doorbell import Doorbell
from .events import (
    Ended,
    Erred,
    Failed,
    Hook,
    JobStarted,
    Paused,
    Polled,
    Reenqueued,
    Resized,
    Started,
    Succeeded,
    TooLate,
    backtrace,
    ignore,
)
from .housekeeping import Housekeeping
from .keys import Keys
from .loop_delay import LoopDelay
from .process_pool import process_pool
from .registration import Registration
from .scaling import LOOK_SECONDS, Scaling
from .scripts import Scripts
from .wire import BadJob

ALONE_FROM = 2  # crashes; as SUSPECT in claim.lua
PAUSE_CAP_SECONDS = 0.5  # between two tries while Redis is away
GIVE_BACK_SECONDS = 2.0

log = logging.getLogger(__name__)


class UnknownClass(Exception):
    """Nobody here knows what a job of this class should do."""


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
        self._definitions = definitions
        self._hook = hook
        self._scaling = scaling or Scaling()
        self._drain_seconds = drain_seconds
        self._processes = processes
        self._pool: ProcessPoolExecutor | None = None
        scripts = Scripts(connections.commands)
        self._wake = asyncio.Event()
        self._claims = Claims(scripts, self.keys, queues, per_second)
        self._doorbell = Doorbell(connections.waiting, self.keys, queues, self._wake)
        self._registration = Registration(
            scripts, connections.thread, self.keys, queues, lease_seconds, on_lost=self._lose_lease
        )
        self.housekeeping = Housekeeping(
            connections.commands, scripts, self.keys, hook, crash_limit=crash_limit, stuck_seconds=stuck_seconds
        )
        self.delay = LoopDelay()
        self._free: list[Slot] = []
        self._asking: list[Slot] = []  # free, and on their way to Redis in a call
        self._running: dict[Slot, asyncio.Task[None]] = {}
        self._removing: set[asyncio.Task[None]] = set()
        self._surplus = 0  # slots to be given up as soon as they are free
        self._alone = False  # the job that runs must run alone
        self._more = False  # when last asked, there were jobs for every free slot
        self._lost = False
        self._paused = ""
        self._log = OncePerSecond(log)

    @property
    def busy(self) -> int:
        return len(self._running)

    @property
    def slots(self) -> int:
        return len(self._running) + len(self._free) + len(self._asking) - self._surplus

    async def run(self, stop: Callable[[], Awaitable[str]]) -> None:
        """Work until `stop` returns, which says why. Then take nothing new, finish what runs within `drain_seconds`,
        give the rest back, and leave no trace.
        """
        async with self._registration, self._doorbell, self.delay:
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
                await self._leave()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

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
            if self._lost:
                await self._begin_anew()
            if not self._free or self._alone:
                self._more = True
                await self._wake.wait()
                continue
            self._asking, self._free = self._free, []  # scaling keeps its hands off them meanwhile
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
        """Until there may be something to take: a queue rings, a throttle lets go, a pause may be over."""
        self._more = False
        later = [seconds for seconds in answer.waits.values() if seconds > 0]
        timer = asyncio.get_running_loop().call_later(min(later), self._wake.set) if later else None
        self._doorbell.listen(queue for queue, seconds in answer.waits.items() if seconds == 0)
        if any(seconds < 0 for seconds in answer.waits.values()):
            await self._idle()
        else:
            await self._wake.wait()
        if timer is not None:
            timer.cancel()

    async def _idle(self) -> None:
        """Until no job runs: the next one must run alone."""
        self._more = True  # each slot that is freed wakes us
        while self._running and not self._lost:
            self._wake.clear()
            await self._wake.wait()

    def _freed(self, slot: Slot) -> None:
        del self._running[slot]
        if self._lost:
            return
        if self._surplus:
            self._surplus -= 1
            self._remove([slot])
            return
        self._free.append(slot)
        self._alone = False
        if self._more:
            self._wake.set()

    # Working

    async def _work(self, claim: Claim) -> None:
        try:
            await self._perform(claim)
        except asyncio.CancelledError:  # because of the end, or of a lost lease: then it is not ours to give
            with suppress(RedisError, TimeoutError):
                async with asyncio.timeout(GIVE_BACK_SECONDS):
                    await self._claims.give_back(claim)
        except Exception as error:  # a bug of ours, or of a hook: the job stays in its record until the lease ends
            log.exception("error beside a job")
            self._hook(Erred("a job could not be settled", error))
        finally:
            self._freed(claim.slot)

    async def _perform(self, claim: Claim) -> None:
        started = time.monotonic()
        job = claim.job
        if job is None:
            return await self._give_up(claim, BadJob(claim.bad))
        definition = self._definitions.get(job.name)
        if definition is None:
            return await self._give_up(claim, UnknownClass(f'nobody here knows the class "{job.name}"'))
        self._hook(JobStarted(claim.slot.name, job, claim.failed + 1, claim.waited))
        try:
            claim.lock = definition.lock(job)
            result = await self._call(definition, claim)
        except WaitAndRepeat:
            await self._settle(claim, self._claims.give_back)
        except asyncio.CancelledError as error:
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            await self._failed(claim, definition, error)  # the job's own doing, not ours
        except Exception as error:
            await self._failed(claim, definition, error)
        else:
            if await self._settle(claim, self._claims.acknowledge):
                self._hook(Succeeded(claim.slot.name, job, result, time.monotonic() - started))
            else:
                self._hook(TooLate(claim.slot.name, job))

    async def _call(self, definition: Definition, claim: Claim) -> Any:
        assert claim.job is not None
        if not definition.plugins:
            return await self._call_limited(definition, claim.job.args)
        for plugin in definition.plugins:
            if not await plugin.before_perform(claim.job):
                return None
        error: BaseException | None = None
        try:
            return await self._call_limited(definition, claim.job.args)
        except BaseException as raised:
            error = raised
            raise
        finally:
            for plugin in definition.plugins:
                await plugin.after_perform(claim.job, error)

    async def _call_limited(self, definition: Definition, args: list[Any]) -> Any:
        if definition.time_limit is None:
            return await self._call_plain(definition, args)
        try:
            async with asyncio.timeout(definition.time_limit) as limit:
                return await self._call_plain(definition, args)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise TimeoutError(f"not done within {definition.time_limit:g} s") from error

    async def _call_plain(self, definition: Definition, args: list[Any]) -> Any:
        if definition.in_process:
            self._pool = self._pool or process_pool(self._processes)
            return await asyncio.get_running_loop().run_in_executor(self._pool, definition.perform, *args)
        if definition.is_async:
            return await definition.perform(*args)
        return await asyncio.to_thread(definition.perform, *args)

    async def _failed(self, claim: Claim, definition: Definition, error: BaseException) -> None:
        assert claim.job is not None
        attempt = claim.failed + 1
        if isinstance(error, Permanent) or attempt >= definition.attempts:
            return await self._give_up(claim, error)
        seconds = definition.pause(attempt)
        if await self._settle(claim, lambda claim: self._claims.retry(claim, seconds)):
            self._hook(Reenqueued(claim.slot.name, claim.job, attempt, error, seconds))

    async def _give_up(self, claim: Claim, error: BaseException) -> None:
        cause = error.__cause__ if isinstance(error, Permanent) and error.__cause__ else error
        kind, lines = type(cause).__name__, backtrace(error)
        if await self._settle(claim, lambda claim: self._claims.give_up(claim, kind, str(error), lines)):
            self._hook(Failed(claim.slot.name, claim.job, claim.failed + 1, error))

    async def _settle(self, claim: Claim, settle: Callable[[Claim], Awaitable[bool]]) -> bool:
        """Say what became of a job until Redis has heard it: to repeat it is safe. False: the job was not ours any
        more.
        """
        failures = 0
        while True:
            try:
                return await settle(claim)
            except RedisError as error:
                failures += 1
                await self._outage("cannot settle a job", error, failures)

    # The lease

    def _lose_lease(self) -> None:
        """We were silent for too long. What we hold is done by others: stop, and begin anew under another name."""
        if not self._lost:
            self._lost = True
            log.warning("the lease has ended: %d jobs are somebody else's now", len(self._running))
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
                    self._log.warning("cannot register more slots: %s", reason(error))
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
        task = asyncio.create_task(self._unregister(slots))
        self._removing.add(task)
        task.add_done_callback(self._removing.discard)

    async def _unregister(self, slots: Sequence[Slot]) -> None:
        try:
            await self._registration.remove(slots)
        except RedisError as error:  # then their lease ends by itself
            self._log.warning("cannot unregister slots: %s", reason(error))

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
        self._log.warning("%s: %s", what, reason(error))
        self._hook(Erred(what, error))
        await asyncio.sleep(backoff_seconds(failures, base=0.05, cap=PAUSE_CAP_SECONDS))
