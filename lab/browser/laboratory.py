"""The whole lab: six lanes, one mail server, one Redis, and what a reader can do to them."""

import asyncio
import os
import signal
import time
from contextlib import ExitStack, suppress
from typing import Any

import psutil
from redis.exceptions import RedisError

from asynckit.tasks import background, end_tasks, keep_running
from common.services.service import CannotStart, Service
from common.settings import Settings
from lab.browser.lane import Lane
from lab.browser.tracked_lab import TrackedLab
from lab.faults.promises import STEPS, SUBJECTS
from lab.faults.running import TAKE_MS
from lab.harness.engines import missing
from lab.harness.frozen import FrozenProcesses
from lab.harness.machine import alive
from lab.harness.mailbox import Mailbox
from lab.harness.processes import ChildFailed

TICK_SECONDS = 0.02
JOURNAL_SECONDS = 0.05
REDIS_SECONDS = 1.0  # after which a killed Redis is started again, as `make run-N` does
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "freeze": signal.SIGSTOP, "thaw": signal.SIGCONT}
NO_FAULTS = {"latency_ms": 0, "refuse_rate": 0.0, "refuse_code": 451, "hang_rate": 0.0, "lose_reply_rate": 0.0}

Dial = dict[str, float]


class CannotAct(Exception):
    """What the reader asked for cannot be done; the message is one line."""


def subjects() -> dict[str, list[str]]:
    """What each lane can run on this machine."""
    whole = {name: subject for name, subject in (SUBJECTS | STEPS).items() if not subject.only}
    there = {name: str(subject.number) for name, subject in whole.items() if missing(subject.settings) is None}
    return {lane: [name for name, number in there.items() if number == lane] for lane in "123456"}


class Laboratory:
    def __init__(self, lab: TrackedLab, names: str) -> None:
        self.dial: Dial = dict(NO_FAULTS)
        self.begin = time.monotonic()
        self.box = Mailbox(lab, TAKE_MS, attempts=True)
        self._redis = Service(Settings.model_construct(data_dir=lab.folder / "redis", valkey_port=0), "valkey")
        self._stack = ExitStack()
        self._lab = lab
        self._starts = asyncio.Semaphore(os.cpu_count() or 1)  # so that the first lanes can be used early
        self.lanes = {name: self._lane(name) for name in names}
        self.ready = False
        self._frozen = FrozenProcesses()
        self._tasks: list[asyncio.Task[Any]] = []

    def _lane(self, name: str) -> Lane:
        return Lane(self._lab, self.box, name, lambda: self._redis_url(name), self._starts)

    def _redis_url(self, name: str) -> str:
        """Each lane has a database of its own, so that a switch to another subject finds it empty."""
        return f"redis://127.0.0.1:{self._redis.ports['VALKEY_PORT']}/{name}"

    async def start(self) -> None:
        """Start everything; returns at once."""
        self._tasks = [background(self._start(), "starting the lab")]

    async def _start(self) -> None:
        await asyncio.gather(
            asyncio.to_thread(self.box.start), asyncio.to_thread(self._stack.enter_context, self._redis)
        )
        self.ready = True
        works = (self._keep_pace, "the callers"), (self._read_journal, "the journal"), (self._watch_redis, "Redis")
        self._tasks += [keep_running(work, what) for work, what in works]
        for lane in self.lanes.values():
            await lane.start()

    async def end(self) -> None:
        """Stop everything in order; returns when no process is left."""
        self.thaw()
        starting, *others = self._tasks
        await end_tasks(others)
        with suppress(Exception):  # logged when it was raised
            await starting
        await asyncio.gather(*[lane.end() for lane in self.lanes.values()])
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        with suppress(AttributeError):  # it has not been started
            self.box.close()
        self._stack.close()

    # Running

    async def _keep_pace(self) -> None:
        before = time.monotonic()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            for lane in self.lanes.values():
                if lane.callers.port:
                    lane.callers.tick(min(now - before, 0.5))
            before = now

    async def _read_journal(self) -> None:
        while True:
            self.read_journal()
            await asyncio.sleep(JOURNAL_SECONDS)

    def read_journal(self) -> None:
        """Note what the mail server has recorded since the last call."""
        for entry in self.box.new():
            lane = self.lanes.get(entry.to.removeprefix("lane")[:1])
            if lane is not None and entry.to.startswith("lane"):
                lane.note(entry)

    async def _watch_redis(self) -> None:
        while True:
            await asyncio.sleep(REDIS_SECONDS)
            with suppress(CannotStart):
                await asyncio.to_thread(self._redis.ensure)

    # What a reader does

    def load(self, names: list[str], rate: float) -> None:
        for name in names:
            self.lanes[name].callers.rate = rate

    def burst(self, names: list[str], count: int) -> None:
        """The same emails to all these lanes at the same moment."""
        now = time.perf_counter_ns()
        for name in names:
            self.lanes[name].burst(count, now)

    async def turn_dial(self, dial: Dial) -> None:
        """Raises CannotAct."""
        try:
            await asyncio.to_thread(lambda: self.box.dial(**{**NO_FAULTS, **dial}))
        except OSError as error:
            raise CannotAct(f"the mail server does not answer: {error}") from None
        self.dial = {**NO_FAULTS, **dial}

    def signal(self, name: str, role: str, how: str, wanted: int | None = None) -> int:
        """Send a signal to the newest process of this role, or to the one that is wanted. Returns its pid.

        Only processes that the lab has started get one. Raises CannotAct.
        """
        pid = self._redis.pid if role == "redis" else self._pid(name, role, wanted)
        if not pid or not _send(pid, SIGNALS[how]):
            raise CannotAct(f"there is no {role} in lane {name} now" if role != "redis" else "Redis is not running now")
        (self._frozen.add if how == "freeze" else self._frozen.discard)(pid)
        for lane in self.lanes.values():
            if lane.uses_redis if role == "redis" else lane.name == name:
                lane.unsettle()
        return pid

    def _pid(self, name: str, role: str, wanted: int | None) -> int:
        pids = [seen.pid for seen in self.lanes[name].seen.processes if seen.role == role and _is_alive(seen.pid)]
        return next((pid for pid in reversed(pids) if wanted in (None, pid)), 0)

    async def add_worker(self, name: str) -> None:
        """Raises CannotAct."""
        try:
            await self.lanes[name].add_worker()
        except ChildFailed as error:
            raise CannotAct(str(error)) from None

    async def switch(self, name: str, subject: str) -> None:
        """Raises CannotAct."""
        if subject not in subjects()[name]:
            raise CannotAct(f"lane {name} cannot run {subject} on this machine")
        if not self.ready:
            raise CannotAct("the lab is still starting")
        self.thaw()
        try:
            await self.lanes[name].switch(subject)
        except (RedisError, OSError) as error:
            raise CannotAct(f"Redis does not answer: {error}") from None

    def thaw(self) -> None:
        self._frozen.thaw()

    async def heal(self) -> None:
        """No load, no faults, no further workers, no frozen process. Raises CannotAct."""
        self.load(list(self.lanes), 0.0)
        self.thaw()
        if self.ready:
            await self.turn_dial({})
        await asyncio.gather(*[lane.remove_workers() for lane in self.lanes.values()])

    def start_over(self, names: list[str]) -> None:
        for name in names:
            self.lanes[name].start_over()

    def redis_state(self) -> str:
        pid = self._redis.pid
        return "starts" if not pid else "frozen" if pid in self._frozen else "runs" if _is_alive(pid) else "dead"


def _is_alive(pid: int) -> bool:
    try:
        return alive(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def _send(pid: int, number: signal.Signals) -> bool:
    """Returns False if the process has ended."""
    if not _is_alive(pid):
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False
