"""`python -m lab.cell SUBJECT FAULT…`: faults done to one strategy, one cell of the table after the other.

A cell: emails at a steady rate; at random moments the fault, KILLS times, each time after the strategy has come back
from the one before; then the wait until everything has settled; then the account. How long it is until the next fault,
how long a fault lasts, and which emails the mail server refuses, come from the seed of the run, the subject and the
fault: a cell can be done again alone. (What a program was doing at that moment does not come from there.)

Prints lines of JSON: {"doing": …} while it runs, and each cell when it is done.
"""

import argparse
import json
import math
import random
import re
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from redis.exceptions import RedisError

from common.sender import WINDOW
from lab.account import Account, Hit, Story, account
from lab.children import LOOK_SECONDS, ChildFailed, Lab, python
from lab.command import end_on_signals
from lab.hits import HITS, TAKE_MS, Running
from lab.mailbox import Arrival, Mailbox, mailbox
from lab.promises import SUBJECTS, Bound, Promise, promise

LONGEST_WAIT = 6.0  # seconds for which callers may be kept waiting: so many clients there are
TIMEOUT = 15.0  # seconds after which a client gives up
BACK_SECONDS = 45.0  # within which a strategy must have come back
SETTLE_SECONDS = 60.0  # within which nothing may be queued any more
QUIET_SECONDS = 0.6  # without an arrival, when all are there: for copies
SILENT_SECONDS = 3.0  # without an arrival, while some are missing and nobody says that they are on their way

PARKED = "eventr:parked:{email}"  # of strategy 6: a hash

_ID = re.compile(r"<[^<>\s\"]+@[^<>\s\"]+>")
_GAVE_UP = re.compile(r"gave up (<[^>]+>) after")
_FIGURES = re.compile(r"accepted \d+, .*, waiting (\d+), in flight (\d+),")
_AT_WORK = re.compile(r"\] [\d:.]+ (sent <|<[^>]+> again in)")

TROUBLE = (ChildFailed, OSError, HTTPException, RedisError, psutil.Error, ValueError)
"""What can go wrong in doing a fault, and in looking at its end."""


@dataclass(frozen=True)
class Plan:
    seed: str
    kills: int
    rate: float

    @property
    def clients(self) -> int:
        return math.ceil(self.rate * LONGEST_WAIT)


class Broken(Exception):
    """The strategy has not come back, or not come to rest: the cell ends here, and says so."""


@dataclass(frozen=True)
class Books:
    """What the strategy itself says of all that it ever had."""

    queued: int
    done: int | None


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
        self._given_up_before = self._given_up()
        self._books_before = self._books()

    def run(self, lab: Lab) -> dict[str, Any]:
        self._running.box.seed(f"{self._plan.seed}/{self._subject}/{self._fault}")
        load = python(
            "lab.steady", "--port", self._running.strategy.port, "--rate", self._plan.rate, "--tag", self._tag,
            "--clients", self._plan.clients, "--query", self._running.subject.query, "--timeout", TIMEOUT,
        )  # fmt: skip
        broken = []
        with lab.child(load, "steady") as child:
            try:
                self._do_faults(begin=int(child.wait_for(r"(\d+)\n")))
            except (Broken, *TROUBLE) as reason:
                broken.append(str(reason))
            child.process.terminate()
            records = child.result(TIMEOUT + 5)["records"]
        try:
            self._wait_until_settled({record[5] for record in records if record[5]})
        except Broken as reason:
            broken.append(str(reason))
        books, before = self._books(), self._books_before
        done = books.done - before.done if books.done is not None and before.done is not None else None
        if self._fault in ("master-kill", "all-term") and self._running.subject.number == 3:
            done = None  # they were in the memory of the one that died
        given_up = self._given_up() - self._given_up_before
        return self._report(account(records, self._arrivals(), self._tag, given_up, books.queued, done), broken)

    def _do_faults(self, begin: int) -> None:
        """`begin` is when email number 0 was due: ns."""
        self._wait_until_back(begin, begin)
        for number in range(1, self._plan.kills + 1):
            time.sleep(self._chance.uniform(0.1, 0.6))
            self.hits.append(HITS[self._fault](self._running, self._chance))
            say(doing=f"{number} of {self._plan.kills}")
            self._wait_until_back(begin, self.hits[-1].end)

    def _arrivals(self) -> list[Arrival]:
        """Those since the beginning. A late copy of an earlier cell is among them, and will be unexpected."""
        return self._running.box.arrivals()[self._first :]

    def _wait_until_back(self, begin: int, since: int) -> None:
        """Wait until an email that was due after this moment (ns) has been sent. Raises Broken."""
        least = math.ceil((since - begin) / 1e9 * self._plan.rate) + 1
        deadline = time.monotonic() + BACK_SECONDS
        name = re.compile(rf"{re.escape(self._tag)}-(\d+)@")
        while not any(int(found[1]) >= least for a in self._arrivals()[-50:] if (found := name.match(a.to))):
            if time.monotonic() > deadline:
                raise Broken(f"no email was sent in the {BACK_SECONDS:g} s after fault {len(self.hits)}")
            time.sleep(LOOK_SECONDS)

    def _wait_until_settled(self, accepted: Collection[str]) -> None:
        """Wait until nothing is queued and no more arrives. Raises Broken."""
        seen, since = -1, time.monotonic()
        deadline, why = since + SETTLE_SECONDS, ""
        while time.monotonic() < deadline:
            if (count := len(self._arrivals())) != seen:
                seen, since = count, time.monotonic()
            quiet = time.monotonic() - since
            try:
                why = f"still {queued} queued" if (queued := self._books().queued) else "emails still come"
                missing = set(accepted) - {arrival.id for arrival in self._arrivals()} - self._given_up()
                if not queued and quiet > (SILENT_SECONDS if missing else QUIET_SECONDS):
                    return
            except TROUBLE as trouble:  # it is coming back
                why = str(trouble)
            time.sleep(0.1)
        raise Broken(f"{why} after {SETTLE_SECONDS:g} s")

    def _books(self) -> Books:
        """Raises OSError or HTTPException when they cannot be read now."""
        number = self._running.subject.number
        if number == 4:  # only its worker knows; with ?wait= there is nothing to know, as nothing is tried again
            waits = bool(self._running.subject.query)
            return Books(0 if waits else queued_at_worker(self._running.strategy.make.text()), None)
        stats = self._running.strategy.stats()
        if stats["waiting"] is None or stats["in_flight"] is None:
            raise OSError("the strategy does not know its own figures just now")
        # Strategies 1 and 2 count in the process that is killed; 6 tells Redis only every now and then.
        done = stats["sent"] + stats["failed"] if number in (3, 5) else None
        return Books(int(stats["waiting"]) + int(stats["in_flight"]), done)

    def _given_up(self) -> set[str]:
        """The ids that the strategy names as given up. (Strategy 2 names them too, but keeps nothing to try again.)"""
        number = self._running.subject.number
        if number in (3, 4):
            return {found for path in self._running.outputs for found in _GAVE_UP.findall(path.read_text())}
        if number in (5, 6):
            with self._running.redis() as redis:
                entries: Any = redis.lrange("resque:failed", 0, -1) if number == 5 else redis.hvals(PARKED)
            return {found for entry in entries for found in _ID.findall(entry.decode(errors="replace"))}
        return set()

    def _report(self, found: Account, broken: list[str]) -> dict[str, Any]:
        promised = promise(self._subject, self._fault)
        taken = [story for story in found.stories if story.accepted or story.arrivals]
        return {
            "subject": self._subject,
            "fault": self._fault,
            "hits": len(self.hits),
            "under_way": sum(any(story.under_way(hit, slack=0) for hit in self.hits) for story in taken),
            **found.to_dict(),
            "back_ms": max((back_ms(found.stories, hit) for hit in self.hits), default=0.0),
            "promised": promised.text(),
            "broken": broken + broken_promises(promised, found, self.hits),
        }


def queued_at_worker(log: str) -> int:
    """What strategy 4's worker has in its hands, which only its log says, five seconds late; 1 if there may be some."""
    *_, newest = log.rpartition("subscribed to emailz\n")
    figures = list(_FIGURES.finditer(newest))
    behind = newest[figures[-1].end() :] if figures else newest
    if _AT_WORK.search(behind):
        return 1
    return int(figures[-1][1]) + int(figures[-1][2]) if figures else 0


def back_ms(stories: Sequence[Story], hit: Hit) -> float:
    """From the end of a fault until the first email that was due after it is in the inbox."""
    arrivals = [story.arrivals[0] for story in stories if story.arrivals and story.due >= hit.end]
    return (min(arrivals) - hit.end) / 1e6 if arrivals else 0.0


def broken_promises(promised: Promise, found: Account, hits: Sequence[Hit]) -> list[str]:
    """In what way what was measured is not what was promised; [] when it is."""
    reasons = []
    lost = [story for story in found.stories if story.lost]
    twice = [story for story in found.stories if len(story.arrivals) > 1]
    for what, bound, stories in (("lost", promised.lost, lost), ("twice", promised.twice, twice)):
        if bound is Bound.NONE and stories:
            reasons.append(f"{len(stories)} {what}, promised: none")
        elif strays := [story for story in stories if not any(map(story.under_way, hits))]:
            reasons.append(f"{len(strays)} {what} that were not under way at any fault")
        elif bound is Bound.IN_HANDS and len(stories) > WINDOW * len(hits):
            reasons.append(f"{len(stories)} {what}, promised: at most {WINDOW} for each of {len(hits)} faults")
    given_up = [story for story in found.stories if story.given_up and story.accepted and not story.arrivals]
    outlived = [sum(map(story.waited_through, hits)) for story in given_up]
    if too_soon := [number for number in outlived if promised.given_up is None or number < promised.given_up]:
        reasons.append(f"{len(too_soon)} given up, promised: {promised.given_up_text()}")
    if found.unexpected:
        reasons.append(f"{found.unexpected} sent that nobody has asked for")
    if not found.closes:
        reasons.append("the account does not close")
    return reasons


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def run_cells(lab: Lab, box: Mailbox, subject: str, faults: list[str], plan: Plan) -> None:
    """One after another, on the same running strategy as long as it is well. Raises ChildFailed."""
    running = Running(lab, SUBJECTS[subject], box)
    running.start()
    try:
        for fault in faults:
            say(doing="load", fault=fault)
            try:
                running.strategy.wait_until_healthy()
                facts = Cell(running, subject, fault, plan).run(lab)
            except TROUBLE as failure:
                facts = {"subject": subject, "fault": fault, "broken": [f"not measured: {failure}"]}
            say(cell=facts)
            if facts["broken"] and fault != faults[-1]:
                running.end()
                box.dial()
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
        with mailbox(lab, TAKE_MS) as box:
            try:
                run_cells(lab, box, options.subject, options.faults, plan)
            except ChildFailed as failure:
                sys.exit(str(failure))


if __name__ == "__main__":
    main()
