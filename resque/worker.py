"""The worker: it claims jobs when slots are free, runs them concurrently, settles each one, and does housekeeping.

Four activities run at the same time: claiming, housekeeping, scaling, and a heartbeat in its own thread.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from asynckit.backoff import backoff_seconds
from asynckit.isolation import isolating_task
from asynckit.log_limit import REDIS, OncePerSecond
from asynckit.redis_client import CALL_ERRORS, describe
from asynckit.tasks import end_tasks, run_together

from .claiming import RELEASE_SECONDS, ClaimingLoop
from .claims import Claims
from .connections import Connections
from .definition import Definitions
from .events import Ended, Erred, Hook, Started, guarded, ignore
from .executor import Executor
from .housekeeping import Housekeeping
from .keys import Keys
from .loop_delay import LoopDelay
from .notifier import Notifier
from .registration import AT_ONCE, Registration
from .scaling import Scaling
from .scripts import Scripts
from .slots import Slots

PAUSE_CAP_SECONDS = 0.5  # between two tries while Redis is unreachable

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
        self._hook = hook = guarded(hook)
        self._drain_seconds = drain_seconds
        self._log = OncePerSecond(log, REDIS)
        scripts = Scripts(connections.commands)
        wake = asyncio.Event()
        self._registration = Registration(
            scripts, connections.thread, self.keys, queues, lease_seconds, on_lost=lambda: self._claiming.lose_lease()
        )
        self._slots = Slots(self._registration, scaling or Scaling(), hook, wake)
        self._claims = Claims(scripts, self.keys, queues, per_second, self._slots)
        self._executor = Executor(self._claims, definitions, hook, self._outage, processes)
        self._notifier = Notifier(connections.waiting, self.keys, queues, wake)
        self._claiming = ClaimingLoop(
            *(self._claims, self._executor, self._notifier, self._slots, wake),
            queues=queues,
            lease_seconds=lease_seconds,
            hook=hook,
            outage=self._outage,
        )
        self.housekeeping = Housekeeping(
            *(connections.commands, scripts, self.keys, hook),
            crash_limit=crash_limit,
            stuck_seconds=stuck_seconds,
            lease_seconds=lease_seconds,
            definitions=definitions,
        )

    @property
    def busy(self) -> int:
        """How many jobs are running."""
        return len(self._slots.running)

    @property
    def slots(self) -> int:
        """How many jobs may run at a time."""
        return self._slots.count

    @property
    def delay(self) -> LoopDelay:
        return self._slots.delay

    async def run(self, stop: Callable[[], Awaitable[str]]) -> None:
        """Work until `stop` returns the reason to stop. Then claim no more jobs, let the running jobs finish within
        `drain_seconds`, release the rest, and unregister. The same happens if the task that awaits this is cancelled.

        If all tasks are cancelled, as `asyncio.run` does when its main task ends first, the running jobs are left to
        their leases, and a death of their worker is counted for each: a job may have caused it.
        """
        asyncio.get_running_loop().set_task_factory(isolating_task)
        async with self._registration, self._notifier, self.delay:
            stopping = asyncio.ensure_future(stop())
            working = asyncio.create_task(self._run_activities())
            try:
                await asyncio.wait([stopping, working], return_when=asyncio.FIRST_COMPLETED)
                if working.done():  # only a bug ends it: raise the error, so that the supervisor restarts the process
                    working.result()
                log.info("stopping (%s)", stopping.result())
            finally:
                cancelled_with_all = working.cancelling() > 0
                await end_tasks([working, stopping])
                await (self._abandon() if cancelled_with_all else self._stop())

    async def _stop(self) -> None:
        await self._drain()
        self._executor.close()
        await self._unregister()

    async def _abandon(self) -> None:
        """A job has cancelled all tasks, or the event loop has been stopped. Do not release the jobs: when
        their leases end, each counts a death of its worker, and the job that caused this ends up in the failed list.
        """
        log.error("all tasks were cancelled, but not by the worker: the jobs start again when their leases end")
        await end_tasks(self._slots.running.values(), RELEASE_SECONDS)
        self._executor.close()

    async def _run_activities(self) -> None:
        await self._register()
        await run_together(self._claiming.run(), self.housekeeping.run(), self._slots.scale())

    async def _register(self) -> None:
        failures = 0
        while True:
            try:
                await self._slots.register()
            except CALL_ERRORS as error:
                failures += 1
                await self._outage("cannot register", error, failures)
            else:
                self._hook(Started(self._slots.free[0].name))
                return

    async def _drain(self) -> None:
        """Let the running jobs finish within the limit, then release the rest to their queues."""
        running = self._slots.running
        if running:
            log.info("waiting up to %g s for %d jobs", self._drain_seconds, len(running))
            await asyncio.wait(running.values(), timeout=self._drain_seconds)
        left = list(running.values())
        if left:
            log.info("releasing %d jobs", len(left))
            self._slots.releasing = True
            await end_tasks(left, RELEASE_SECONDS)

    async def _unregister(self) -> None:
        name, slots = self._registration.host, list(self._registration.slots.values())
        with suppress(*CALL_ERRORS, TimeoutError):
            async with asyncio.timeout(RELEASE_SECONDS * (1 + len(slots) // AT_ONCE)):
                await self._registration.remove(slots)
                await self.housekeeping.resign()
        await self._slots.removed(RELEASE_SECONDS)
        self._hook(Ended(name))
        log.info("stopped")

    async def _outage(self, what: str, error: Exception, failures: int) -> None:
        self._log.warning("%s: %s", what, describe(error))
        self._hook(Erred(what, error))
        await asyncio.sleep(backoff_seconds(failures, base=0.05, cap=PAUSE_CAP_SECONDS))
