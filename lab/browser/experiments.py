"""Experiments: a load, a fault at the right moment, and the wait until every account closes.

An experiment waits for what it needs to see (an email in flight in this lane), never for a fixed time, so that it shows
the same on a slow machine.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from lab.browser.explanations import Explanation, explanation
from lab.browser.laboratory import CannotAct, Laboratory
from lab.browser.lane import Lane
from lab.faults.running import TAKE_MS

POLL_SECONDS = 0.005
FRESH_SECONDS = TAKE_MS / 2000  # the mail server needs at least as long again for this email
READY_SECONDS = 60.0
BURSTS = 5
FLIGHT_SECONDS = 5.0  # within which an email of a burst is in flight, or will not be
SETTLE_SECONDS = 60.0

Step = Callable[["Run"], Awaitable[None]]


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for the condition. Returns False if it is still false after these seconds."""
    deadline = time.monotonic() + seconds
    while True:
        if condition():
            return True
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)


@dataclass
class Run:
    """One run of an experiment, from the prediction to the result."""

    laboratory: Laboratory
    number: int
    name: str
    fault: str
    lanes: list[str]
    phase: str = "prepares"
    """prepares, sends, breaks, waits, done, or failed."""
    problem: str = ""
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)
    _before: dict[str, dict[str, int]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "run": self.number,
            "name": self.name,
            "fault": self.fault,
            "lanes": self.lanes,
            "phase": self.phase,
            "problem": self.problem,
            "seconds": round(time.monotonic() - self.began, 1),
            "results": self.results,
        }

    def lane(self, name: str) -> Lane:
        return self.laboratory.lanes[name]

    async def prepare(self) -> None:
        """Repair everything, wait until all lanes are quiet, and begin new accounts. Raises CannotAct."""
        await self.laboratory.heal()
        if not await until(self._all_ready, READY_SECONDS):
            raise CannotAct("a strategy does not start, or does not finish its work")
        self.laboratory.start_over(self.lanes)
        self.note_before()

    def note_before(self) -> None:
        self._before = {name: self._numbers(name) for name in self.lanes}

    def _numbers(self, name: str) -> dict[str, int]:
        lane = self.lane(name)
        return lane.books.numbers(lane.callers.waiting)

    def _all_ready(self) -> bool:
        lanes = [self.lane(name) for name in self.lanes]
        return all(lane.settled for lane in lanes if not lane.failed) and self.laboratory.redis_state() == "runs"

    async def until_in_flight(self, name: str) -> None:
        """Wait until the mail server has just begun to take an email of this lane, so that it is still in flight.

        If that was missed and all emails are delivered, because the machine is busy, send them again.
        """

        def begun() -> bool:
            self.laboratory.read_journal()
            return lane.books.in_flight_since(FRESH_SECONDS)

        lane = self.lane(name)
        for _ in range(BURSTS):
            await until(lambda: begun() or lane.finished, FLIGHT_SECONDS)
            if begun():
                return
            self.laboratory.burst([name], EXPERIMENTS[self.name].emails)

    async def settle(self) -> None:
        """Wait until the account of each lane closes, and note the results."""
        self.phase = "waits"
        await asyncio.gather(*[self._settle(name) for name in self.lanes])
        self.phase = "done"

    async def _settle(self, name: str) -> None:
        lane = self.lane(name)
        lane.unsettle()
        await until(lambda: lane.settled or lane.failed, SETTLE_SECONDS)
        numbers, before = self._numbers(name), self._before[name]
        found: Explanation = explanation(self.fault, lane.subject)
        self.results[name] = {
            **{key: numbers[key] - before.get(key, 0) for key in numbers},
            "subject": lane.subject,
            "closed": lane.settled,
            "gaps": lane.gaps,
            "text": found.text,
            "link": f"http://127.0.0.1:{lane.callers.port}{found.link}",  # the strategy serves its own chapter
        }


@dataclass(frozen=True)
class Experiment:
    title: str
    what: str
    """What the lab will do, in one sentence."""
    fault: str
    """Its name in lab/faults/promises.py."""
    emails: int
    steps: Step

    def to_dict(self) -> dict[str, Any]:
        return {"title": self.title, "what": self.what, "fault": self.fault, "emails": self.emails}


async def kill_workers(run: Run) -> None:
    _burst(run)

    async def kill(name: str) -> None:
        await run.until_in_flight(name)
        roles = {seen.role for seen in run.lane(name).seen.processes}
        run.laboratory.signal(name, "worker" if "worker" in roles else "server", "kill")

    run.phase = "breaks"
    await asyncio.gather(*[kill(name) for name in run.lanes])


async def hang_mail_server(run: Run) -> None:
    await run.laboratory.turn_dial({"hang_rate": 1.0})
    _burst(run)
    run.phase = "breaks"
    await asyncio.gather(*[run.until_in_flight(name) for name in run.lanes])
    await asyncio.sleep(1.5)  # for the reader to see that nothing moves
    await run.laboratory.turn_dial({})


async def start_second_workers(run: Run) -> None:
    run.phase = "breaks"
    await asyncio.gather(*[run.laboratory.add_worker(name) for name in run.lanes])
    _burst(run)


async def kill_redis(run: Run) -> None:
    _burst(run)
    run.phase = "breaks"
    await asyncio.gather(*[run.until_in_flight(name) for name in run.lanes if run.lane(name).uses_redis])
    run.laboratory.signal("", "redis", "kill")


async def lose_replies(run: Run) -> None:
    await run.laboratory.turn_dial({"lose_reply_rate": 1.0})
    _burst(run)
    run.phase = "breaks"
    await asyncio.gather(*[run.until_in_flight(name) for name in run.lanes])
    await asyncio.sleep(0.8)  # until the replies to the first attempts are lost
    await run.laboratory.turn_dial({})


def _burst(run: Run) -> None:
    run.phase = "sends"
    run.laboratory.burst(run.lanes, EXPERIMENTS[run.name].emails)


EXPERIMENTS = {
    "worker": Experiment(
        "The worker dies",
        "The lab sends 40 emails to every lane. While some are in flight, it kills the worker with kill -9 (in lanes 1 "
        "and 2 the web server, which does the worker's job).",
        "worker-kill",
        40,
        kill_workers,
    ),
    "hang": Experiment(
        "The mail server hangs",
        "The lab sends 20 emails to every lane, and the mail server stops answering. After a while it answers again.",
        "smtp-hang",
        20,
        hang_mail_server,
    ),
    "two": Experiment(
        "Two workers",
        "The lab starts a second worker in lanes 4, 5 and 6, and then sends 20 emails to every lane.",
        "worker-second",
        20,
        start_second_workers,
    ),
    "redis": Experiment(
        "Redis dies",
        "The lab sends 40 emails to every lane. While some are in flight, it kills Redis with kill -9, and starts it "
        "again after a second.",
        "redis-kill",
        40,
        kill_redis,
    ),
    "reply": Experiment(
        "The 250 OK gets lost",
        "The lab sends 20 emails to every lane. The mail server accepts each of them and closes the connection before "
        "it answers 250 OK. After a moment it answers again.",
        "smtp-lose-reply",
        20,
        lose_replies,
    ),
}


class Experiments:
    """Runs one experiment at a time."""

    def __init__(self, laboratory: Laboratory) -> None:
        self._laboratory = laboratory
        self._run: Run | None = None
        self._runs = 0

    @property
    def busy(self) -> bool:
        return self._run is not None and self._run.phase not in ("done", "failed")

    def state(self) -> dict[str, Any] | None:
        return self._run.to_dict() if self._run else None

    async def run(self, name: str) -> None:
        """Run a scripted experiment. Raises CannotAct."""
        experiment = EXPERIMENTS[name]
        await self._guard(self._new(name, experiment.fault, self._lanes()), experiment.steps)

    async def signal(self, lane: str, role: str, how: str, pid: int | None) -> None:
        """A fault that the reader chose and predicted: do it, stop the load, wait until the accounts close."""
        lanes = self._laboratory.lanes
        names = [name for name in self._lanes() if lanes[name].uses_redis] if role == "redis" else [lane]

        async def steps(run: Run) -> None:
            run.phase = "breaks"
            target = self._laboratory.signal(lane, role, how, pid)
            await asyncio.sleep(0.5)  # of further load, so that the reader sees what it does to the callers
            if how == "freeze":
                await asyncio.sleep(3.0)  # longer than a lease
                self._laboratory.signal(lane, role, "thaw", target)
            self._laboratory.load(list(self._laboratory.lanes), 0.0)

        run = self._new("free", f"{role}-{'stop' if how == 'freeze' else how}", names)
        run.note_before()
        await self._guard(run, steps, prepare=False)

    def _new(self, name: str, fault: str, lanes: list[str]) -> Run:
        return Run(self._laboratory, self._runs + 1, name, fault, lanes)

    def _lanes(self) -> list[str]:
        return [name for name, lane in self._laboratory.lanes.items() if not lane.failed]

    async def _guard(self, run: Run, steps: Step, *, prepare: bool = True) -> None:
        if self.busy:
            raise CannotAct("an experiment is running")
        self._run, self._runs = run, run.number
        try:
            if prepare:
                await run.prepare()
            await steps(run)
            await run.settle()
            await self._laboratory.heal()
        except CannotAct as problem:
            run.phase, run.problem = "failed", str(problem)
