"""One lane: a strategy that runs, its callers and its account."""

import asyncio
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from redis import Redis

from asynckit.tasks import end_tasks, keep_running
from lab.browser.bookkeeping import Bookkeeping, Race
from lab.browser.callers import Callers
from lab.browser.observation import NOT_READABLE, Observation, observe
from lab.browser.tracked_lab import TrackedLab
from lab.faults.promises import STEPS, SUBJECTS
from lab.faults.running import Running
from lab.harness.account import Counters
from lab.harness.counters import Balance
from lab.harness.mailbox import Arrival, Attempt, Mailbox, MailFault
from lab.harness.settling import Settling
from lab.harness.strategies import Strategy, data_dir

OBSERVE_SECONDS = 0.4
RETRY_SECONDS = 2.0  # after a strategy did not start
BLIND = {"4", "4w", "5r", *STEPS}
"""Subjects whose counters leave some emails out: those in flight, or all that a worker has received and not logged."""


@dataclass(frozen=True)
class Beginning:
    """The strategy's counters when the account began, and the processes that count."""

    balance: Balance | None
    pids: frozenset[int]


class Lane:
    """`name` is the number of its strategy; `subject` is a name of lab/faults/promises.py."""

    def __init__(
        self, lab: TrackedLab, box: Mailbox, name: str, redis_url: Callable[[], str], starts: asyncio.Semaphore
    ) -> None:
        """`starts` limits how many lanes start at the same time."""
        self.name = self.subject = name
        self.status = "starts"
        """starts, runs, ends, or why it has failed."""
        self.epoch = 0
        self.seen = Observation()
        self.more: list[Strategy] = []
        """Further workers."""
        self.settled = False
        self.closed_after: float | None = None
        """Seconds from the last event until the account closed."""
        self.gaps: list[str] = []
        """In what the strategy's own counters differ from the account, when it has settled."""
        self._lab, self._box, self._redis_url, self._starts = lab, box, redis_url, starts
        self._running: Running | None = None
        self._starting: asyncio.Task[None] | None = None
        self._switching, self._adding = asyncio.Lock(), asyncio.Lock()
        self._extra = ExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._given_up_before: frozenset[str] = frozenset()
        self.callers = Callers(self._on_asked, self._on_answered)
        self.start_over()

    # Its account

    def start_over(self, *, idle: bool = False) -> None:
        """Begin a new account. `idle`: the strategy holds no email of an earlier one, as after it has settled."""
        idle = idle or self.settled
        self.epoch += 1
        self.books = Bookkeeping(f"lane{self.name}a{self.epoch}")
        self.callers.start_over(self.books.tag)
        self._beginning = Beginning(self.seen.balance if idle else None, self._pids())
        self._given_up_before = self.seen.given_up
        self._begin_settling()

    def unsettle(self) -> None:
        """Settle again: something has been done to this lane."""
        self._begin_settling()

    def _begin_settling(self) -> None:
        self.settled, self.closed_after, self.gaps = False, None, []
        self._settling, self._last_event = Settling(), time.monotonic()

    def _on_asked(self, number: int, due: int, asked: int) -> None:
        self.books.ask(number, due, asked)
        self._begin_settling()

    def _on_answered(self, number: int, answered: int, status: int, email_id: str) -> None:
        self.books.answer(number, answered, status, email_id)
        self._begin_settling()

    def note(self, entry: Arrival | MailFault | Attempt) -> None:
        self.books.note(entry)
        self._begin_settling()

    def burst(self, count: int, now: int) -> None:
        """Request this number of emails now (ns)."""
        if self.callers.port:
            self.books.race = Race(self.books.ledger.numbers["attempted"] + self.callers.behind, count, now)
            self.callers.burst(count)

    def _take(self, seen: Observation) -> None:
        if (seen.balance, seen.processes) != (self.seen.balance, self.seen.processes):
            self._last_event = time.monotonic()
        self.seen = seen
        for email_id in seen.given_up - self._given_up_before:
            self.books.give_up(email_id)
        quiet = not (self.callers.waiting or self.callers.behind or self.books.flights or self.disturbed)
        complete = self.subject not in BLIND and not self.disturbed
        self.books.take_balance(seen.balance, complete=complete)
        if seen.balance is not None and quiet:
            if self._settling.settled(seen.balance, missing=self.books.missing) and not self.settled:
                self.books.settle()
                self.settled, self.closed_after = True, time.monotonic() - self._last_event
                self.gaps = self.books.ledger.account(self._counters(seen.balance)).gaps()
        elif self.settled:
            self._begin_settling()

    def _counters(self, now: Balance) -> Counters:
        """The strategy's own counters for this account. A counter that has ended with its process is None."""
        before, same = self._beginning.balance, self._beginning.pids <= self._pids()
        if before is None or not same or self.books.ledger.numbers["attempted"] == 0:
            return Counters(queued=now.queued)
        done = None if before.done is None or now.done is None else now.done - before.done
        answered = all(email.status for email in self.books.ledger.emails.values())
        return Counters(now.queued, done, now.accepted - before.accepted if answered else None)

    def _pids(self) -> frozenset[int]:
        """Of the processes whose counters end with them."""
        return frozenset(seen.pid for seen in self.seen.processes if seen.role in ("server", "master"))

    @property
    def finished(self) -> bool:
        """Whether every caller has its answer, and every accepted email has arrived or was given up."""
        return not (self.callers.waiting or self.callers.behind or self.books.missing)

    @property
    def uses_redis(self) -> bool:
        return (SUBJECTS | STEPS)[self.subject].redis

    @property
    def failed(self) -> bool:
        """Whether its strategy did not start."""
        return self.status.startswith("did not start")

    @property
    def disturbed(self) -> bool:
        """Whether a process is frozen or missing, so that the counters do not tell everything."""
        if self._running is None or self.status != "runs":
            return True
        there = {seen.role for seen in self.seen.processes}
        return any(seen.frozen for seen in self.seen.processes) or bool(self._roles() - there)

    def _roles(self) -> set[str]:
        return set(self._running.subject.roles) - ({"scheduler"}) if self._running else set()

    # Its processes

    async def start(self) -> None:
        """Start the strategy; returns at once. `status` tells how it goes."""
        self.status = "starts"
        self._tasks = [keep_running(self._run, f"lane {self.name}")]

    async def _run(self) -> None:
        subject = (SUBJECTS | STEPS)[self.subject]
        settings = {**subject.settings, **({"REDIS_URL": self._redis_url()} if subject.redis else {})}
        running = self._running = Running(self._lab, replace(subject, settings=settings), self._box)
        while not await self._started(running):
            pass
        self.seen = await asyncio.to_thread(observe, running, [])
        self.start_over(idle=True)
        self.status, self.callers.port, self.callers.query = "runs", running.strategy.port, subject.query
        while True:
            self._take(await asyncio.to_thread(observe, running, list(self.more)))
            await asyncio.sleep(OBSERVE_SECONDS)

    async def _started(self, running: Running) -> bool:
        """Start it. Returns False, after a pause, if it did not start."""
        try:
            async with self._starts:
                self._starting = asyncio.create_task(asyncio.to_thread(running.start))
                await asyncio.shield(self._starting)
        except NOT_READABLE as error:
            self.status = f"did not start: {error}"
            await asyncio.sleep(RETRY_SECONDS)
            return False
        return True

    async def switch(self, subject: str) -> None:
        """Run this subject instead, with an empty Redis and a new account."""
        async with self._switching:
            await self.end()
            await asyncio.to_thread(self._forget_data)
            self.subject, self.seen = subject, Observation()
            self.start_over()
            await self.start()

    def _forget_data(self) -> None:
        shutil.rmtree(data_dir(self._lab, int(self.name)), ignore_errors=True)
        with Redis.from_url(self._redis_url(), socket_timeout=5) as redis:
            redis.flushdb()

    async def end(self) -> None:
        """Stop all its processes. Frozen ones must have been thawed."""
        self.status, self.callers.port = "ends", 0
        await self.callers.close()
        await end_tasks(self._tasks)
        self._lab.terminate(f"strategy-{self.name}")  # so that a thread that waits for its start ends
        if self._starting is not None and not self._starting.done():
            await asyncio.wait([self._starting])
        await self.remove_workers()
        if self._running is not None:
            await asyncio.to_thread(self._running.end)
        self._running = None

    async def add_worker(self) -> None:
        """`make run-N ROLE=worker`, as from another terminal. Raises ChildFailed."""
        running = self._running
        if running is None or "worker" not in running.subject.roles or self.name == "3":
            return

        def start() -> Strategy:
            child = self._extra.enter_context(running.extra_process("worker"))
            child.wait_for(r"\[worker @ (\d+)\]")
            return Strategy(running.subject.number, 0, running.strategy.data_dir, child)

        async with self._adding:
            self.more.append(await asyncio.to_thread(start))

    async def remove_workers(self) -> None:
        async with self._adding:
            self.more.clear()
            await asyncio.to_thread(self._extra.close)

    # What the page shows

    def to_dict(self) -> dict[str, Any]:
        waiting = self.callers.waiting
        return {
            "lane": self.name,
            "subject": self.subject,
            "epoch": self.epoch,
            "status": self.status,
            "rate": self.callers.rate,
            "behind": self.callers.behind,
            "numbers": self.books.numbers(waiting),
            "port": self.callers.port,
            "settled": self.settled,
            "closed_after": self.closed_after,
            "gaps": self.gaps,
            "problem": self.seen.problem,
            "race": self.books.race.to_dict() if self.books.race else None,
            **self.books.times(),
            "processes": [
                {"role": seen.role, "pid": seen.pid, "frozen": seen.frozen}
                for seen in sorted(self.seen.processes, key=lambda seen: (seen.role, seen.pid))
            ],
        }
