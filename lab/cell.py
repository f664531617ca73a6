"""`python -m lab.cell SUBJECT FAULT…`: faults done to one strategy, one cell of the table after the other.

A cell: emails at a steady rate; at random moments the fault, KILLS times, each time after the strategy has come back
from the one before; then the wait until everything has settled; then the account. The moments, and how long a fault
lasts, come from the seed of the run, the subject and the fault: a cell can be done again alone.

Prints lines of JSON: {"doing": …} while it runs, and each cell when it is done.
"""

import argparse
import json
import math
import random
import re
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lab.account import Account, Hit, Story, account
from lab.children import LOOK_SECONDS, ChildFailed, Lab, python
from lab.command import end_on_signals
from lab.hits import HITS, TAKE_MS, Running
from lab.mailbox import Mailbox, mailbox
from lab.promises import SUBJECTS, Bound, Promise, promise

CLIENTS = 64  # more than can be waiting at a time
TIMEOUT = 15.0  # seconds after which a client gives up
BACK_SECONDS = 45.0  # within which a strategy must have come back
SETTLE_SECONDS = 60.0  # within which nothing may be queued any more
QUIET_SECONDS = 0.6  # without an arrival, when all are there: for copies
SILENT_SECONDS = 5.0  # without an arrival, while some are missing and the strategy does not know of them
BEFORE = 5_000_000_000  # ns: a lost email that was asked for longer before a fault was not lost by it

_ID = re.compile(r"<[^<>\s\"]+@[^<>\s\"]+>")
_GAVE_UP = re.compile(r"gave up (<[^>]+>) after")


@dataclass(frozen=True)
class Plan:
    seed: str
    kills: int
    rate: float


class Broken(Exception):
    """The strategy has not come back, or not come to rest: the cell ends here, and says so."""


class Cell:
    """One subject under one fault."""

    def __init__(self, running: Running, subject: str, fault: str, plan: Plan) -> None:
        self.hits: list[Hit] = []
        self._running = running
        self._subject = subject
        self._fault = fault
        self._plan = plan
        self._chance = random.Random(f"{plan.seed}/{subject}/{fault}")
        self._tag = f"{subject}-{fault}-{time.monotonic_ns()}"
        self._first = len(running.box.arrivals())

    def run(self, lab: Lab) -> dict[str, Any]:
        promised, broken = promise(self._subject, self._fault), ""
        load = python(
            "lab.steady", "--port", self._running.strategy.port, "--rate", self._plan.rate, "--tag", self._tag,
            "--clients", CLIENTS, "--query", self._running.subject.query, "--timeout", TIMEOUT,
        )  # fmt: skip
        with lab.child(load, "steady") as child:
            begin = int(child.wait_for(r"(\d+)\n"))
            try:
                self._wait_until_back(begin, begin)
                for _ in range(self._plan.kills):
                    time.sleep(self._chance.uniform(0.1, 0.6))
                    self.hits.append(HITS[self._fault](self._running, self._chance))
                    say(doing=f"{len(self.hits)} of {self._plan.kills}")
                    self._wait_until_back(begin, self.hits[-1].end)
            except (Broken, ChildFailed) as reason:
                broken = str(reason)
            child.process.terminate()
            facts = child.result(TIMEOUT + 5)
        accepted = {record[5] for record in facts["records"] if record[5]}
        try:
            self._wait_until_settled(accepted)
        except Broken as reason:
            broken = broken or str(reason)
        failed = self._failed()
        found = account(facts["records"], self._arrivals(), self._tag, failed, self._queued() or 0)
        return self._report(promised, found, broken, failed)

    def _arrivals(self) -> list[Any]:
        return self._running.box.arrivals()[self._first :]

    def _wait_until_back(self, begin: int, since: int) -> None:
        """Wait until an email that was due after this moment (ns) has been sent. Raises Broken."""
        number = math.ceil((since - begin) / 1e9 * self._plan.rate) + 1
        deadline = time.monotonic() + BACK_SECONDS
        numbers = len(self._tag) + 1
        while not any(int(a.to[numbers:].partition("@")[0]) >= number for a in self._arrivals()[-50:] if self._ours(a)):
            if time.monotonic() > deadline:
                raise Broken(f"no email was sent in the {BACK_SECONDS:g} s after fault {len(self.hits)}")
            time.sleep(LOOK_SECONDS)

    def _ours(self, arrival: Any) -> bool:
        return bool(arrival.to.startswith(self._tag))

    def _wait_until_settled(self, accepted: Collection[str]) -> None:
        """Wait until nothing is queued and no more arrives. Raises Broken."""
        seen, since = -1, time.monotonic()
        deadline = since + SETTLE_SECONDS
        while True:
            if (count := len(self._arrivals())) != seen:
                seen, since = count, time.monotonic()
            arrived = {arrival.id for arrival in self._arrivals()}
            quiet = time.monotonic() - since
            queued = self._queued()
            missing = set(accepted) - arrived
            if missing and quiet > QUIET_SECONDS:
                missing -= self._failed()
            if not queued and quiet > (QUIET_SECONDS if not missing else SILENT_SECONDS):
                return
            if time.monotonic() > deadline:
                raise Broken(f"still {queued} queued after {SETTLE_SECONDS:g} s")
            time.sleep(0.1)

    def _queued(self) -> int | None:
        """By the strategy's own books; None when it cannot know."""
        with suppress(OSError):
            stats = self._running.strategy.stats()
            if stats["waiting"] is not None:
                return int(stats["waiting"]) + int(stats["in_flight"])
        return None

    def _failed(self) -> set[str]:
        """The ids that the strategy names as given up. (Strategy 2 names them too, but keeps nothing to try again.)"""
        number = self._running.subject.number
        if number in (3, 4):
            return {found for path in self._running.outputs for found in _GAVE_UP.findall(path.read_text())}
        if number in (5, 6):
            with self._running.redis() as redis:
                entries: Any = redis.lrange("resque:failed", 0, -1) if number == 5 else redis.hvals(PARKED)
            return {found for entry in entries for found in _ID.findall(entry.decode(errors="replace"))}
        return set()

    def _report(self, promised: Promise, found: Account, broken: str, failed: Collection[str]) -> dict[str, Any]:
        taken = [story for story in found.stories if story.accepted or story.arrivals]
        under_way = [sum(story.under_way(hit, BEFORE) for story in taken) for hit in self.hits]
        reasons = [broken] if broken else []
        return {
            "subject": self._subject,
            "fault": self._fault,
            "hits": len(self.hits),
            "under_way": under_way,
            **found.to_dict(),
            "back_ms": max((self._back_ms(found.stories, hit) for hit in self.hits), default=0.0),
            "promised": promised.text(),
            "broken": reasons + broken_promises(promised, found, self.hits, failed),
        }

    def _back_ms(self, stories: list[Story], hit: Hit) -> float:
        """From the end of a fault until the first email that was asked for after it is in the inbox."""
        arrivals = [story.arrivals[0] for story in stories if story.arrivals and story.due >= hit.end]
        return (min(arrivals) - hit.end) / 1e6 if arrivals else 0.0


PARKED = "eventr:parked:{email}"


def broken_promises(promised: Promise, found: Account, hits: list[Hit], failed: Collection[str]) -> list[str]:
    """In what way what was measured is not what was promised; [] when it is."""
    reasons = []
    lost = found.lost_stories(failed)
    twice = [story for story in found.stories if len(story.arrivals) > 1]
    for what, bound, stories in (("lost", promised.lost, lost), ("twice", promised.twice, twice)):
        if bound is Bound.UNDER_WAY:
            stories = [story for story in stories if not any(story.under_way(hit, BEFORE) for hit in hits)]
            if stories:
                reasons.append(f"{len(stories)} {what} that were not under way at any fault")
        elif stories:
            reasons.append(f"{len(stories)} {what}, promised: none")
    if found.failed and not promised.failed:
        reasons.append(f"{found.failed} given up, promised: none")
    if found.unexpected:
        reasons.append(f"{found.unexpected} sent that nobody has asked for")
    if not found.closes:
        reasons.append("the account does not close")
    return reasons


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def run_cells(lab: Lab, box: Mailbox, subject: str, faults: list[str], plan: Plan) -> None:
    """One after another, on the same running strategy as long as it is well."""
    running = Running(lab, SUBJECTS[subject], box)
    running.start()
    try:
        for fault in faults:
            say(doing="load", fault=fault)
            try:
                if running.strategy.unhealthy() is not None:
                    running.strategy.wait_until_healthy()
                facts = Cell(running, subject, fault, plan).run(lab)
            except ChildFailed as failure:
                facts = {"subject": subject, "fault": fault, "broken": [str(failure)]}
            say(cell=facts)
            if facts["broken"]:
                running.end()
                running.start()
    finally:
        running.end()


def main() -> None:
    parser = argparse.ArgumentParser(description="Faults done to one strategy.")
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("faults", nargs="+", choices=HITS)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--kills", type=int, required=True, help="how often each fault is done")
    parser.add_argument("--rate", type=float, required=True, help="emails a second")
    options = parser.parse_args()
    end_on_signals()
    plan = Plan(options.seed, options.kills, options.rate)
    with TemporaryDirectory(prefix="six-ways-faults-", ignore_cleanup_errors=True) as folder:
        lab = Lab(Path(folder))
        with mailbox(lab, TAKE_MS, random.Random(options.seed).randrange(1 << 30)) as box:
            try:
                run_cells(lab, box, options.subject, options.faults, plan)
            except ChildFailed as failure:
                sys.exit(str(failure))


if __name__ == "__main__":
    main()
