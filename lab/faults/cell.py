"""`python -m lab.faults.cell SUBJECT FAULT…`: faults injected into one strategy, one cell of the table after the other.

In a cell the lab sends emails at a steady rate. It injects the fault KILLS times at random moments, each time after the
strategy has recovered from the fault before. Then it waits until all work is done, and makes the account. The pauses
between faults, their length, and the emails that the mail server refuses depend only on the seed of the run, the
subject and the fault, so you can repeat a single cell. (What a program was doing at that moment is not repeatable.)

Prints lines of JSON: {"status": …} while it runs, and each cell when it is complete. The logs of a broken cell are kept
in results/partial/broken/SUBJECT/FAULT.
"""

import argparse
import json
import math
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from redis.exceptions import RedisError

from lab.faults.catalogue import EVERY_INJECTION, EVERY_SUBJECT, promise
from lab.faults.judge import broken_promises
from lab.faults.kept_logs import keep_logs
from lab.faults.preparations import CannotDo
from lab.faults.promises import Bound, Promise
from lab.faults.running import SEND_SECONDS, TAKE_MS, Running
from lab.faults.topology_promises import FAILOVERS
from lab.harness.account import Counters, Injection, Outcome, account
from lab.harness.command import end_on_signals
from lab.harness.counters import Balance, given_up, read_balance
from lab.harness.mailbox import Arrival, Mailbox, mailbox
from lab.harness.processes import POLL_SECONDS, ChildFailed, Lab, python
from lab.harness.settling import Settling

TIMEOUT = 15.0  # how long a client waits for its answer
RECOVERY_SECONDS = 60.0  # how long a strategy may need to send emails again after a fault
SETTLE_SECONDS = 60.0  # how long a strategy may need to empty its queue at the end
TOO_BUSY_MS = SEND_SECONDS / 4 * 1000
"""If the load generator itself was this late (p99), leases and limits may have expired without a fault."""

NEW_SERVER = ("server-kill", "server-term", "master-kill", "all-term", "redis-restored")
"""After these, a new web server counts from zero."""

_TAG = re.compile(r"(\w+)-([a-z0-9-]+)-\d+-\d+@")

ERRORS = (ChildFailed, OSError, HTTPException, RedisError, psutil.Error, ValueError)
"""Raised when a fault cannot be injected, or when the strategy does not answer during one."""


@dataclass(frozen=True)
class Plan:
    seed: str
    kills: int
    rate: float


class NotRecovered(Exception):
    """The strategy did not send emails again, or did not finish its work. The cell ends here, as broken."""


class Cell:
    """One subject under one fault."""

    def __init__(self, running: Running, subject: str, fault: str, plan: Plan) -> None:
        self.injections: list[Injection] = []
        self._running = running
        self._subject = subject
        self._fault = fault
        self._plan = plan
        self._rng = random.Random(f"{plan.seed}/{subject}/{fault}")
        self._tag = f"{subject}-{fault}-{time.monotonic_ns()}"
        self._first = len(running.box.arrivals())
        self._given_up: dict[str, int] = {}
        self._given_up_before = given_up(running)
        self._before = read_balance(running)

    def run(self, lab: Lab) -> dict[str, Any]:
        self._running.box.seed(f"{self._plan.seed}/{self._subject}/{self._fault}")
        load = python(
            "lab.load.steady", "--port", self._running.strategy.port, "--rate", self._plan.rate, "--tag", self._tag,
            "--query", self._running.subject.query, "--timeout", TIMEOUT,
        )  # fmt: skip
        broken, balance = [], None
        with lab.child(load, "steady") as child:
            try:
                self._inject_faults(begin=int(child.wait_for(r"(\d+)\n")))
            except (NotRecovered, *ERRORS) as reason:
                broken.append(str(reason))
            child.process.terminate()
            load_facts = child.result(TIMEOUT + 5)
        try:
            balance = self._wait_until_settled({record[5] for record in load_facts["records"] if record[5]})
        except NotRecovered as reason:
            broken.append(str(reason))
        return self._report(load_facts, balance, broken)

    def _inject_faults(self, begin: int) -> None:
        """`begin` is when email number 0 was due, in ns."""
        self._wait_until_recovered(begin, begin)
        for number in range(1, self._plan.kills + 1):
            time.sleep(self._rng.uniform(0.1, 0.6))
            self.injections.append(EVERY_INJECTION[self._fault](self._running, self._rng))
            say(status=f"{number} of {self._plan.kills}")
            self._wait_until_recovered(begin, self.injections[-1].end)
            with suppress(*ERRORS):  # a process may still be restarting; what cannot be read now is read at the end
                self._note_given_up()

    def _wait_until_recovered(self, begin: int, since: int) -> None:
        """Wait until an email that was due after this moment (ns) has been sent. Raises NotRecovered."""
        first = math.ceil((since - begin) / 1e9 * self._plan.rate) + 1
        deadline = time.monotonic() + RECOVERY_SECONDS
        name = re.compile(rf"{re.escape(self._tag)}-(\d+)@")
        while not any(int(found[1]) >= first for a in self._arrivals()[-50:] if (found := name.match(a.to))):
            if time.monotonic() > deadline:
                raise NotRecovered(
                    f"no email was sent in the {RECOVERY_SECONDS:g} s after fault {len(self.injections)}"
                )
            time.sleep(POLL_SECONDS)

    def _wait_until_settled(self, accepted: Collection[str]) -> Balance:
        """Wait until no email is queued and no more arrive. Raises NotRecovered."""
        deadline, why = time.monotonic() + SETTLE_SECONDS, ""
        settling = Settling()
        while time.monotonic() < deadline:
            settling.notice(len(self._arrivals()))
            try:
                balance = read_balance(self._running)
                self._note_given_up()
            except ERRORS as error:  # a process of the strategy is restarting
                why = str(error)
            else:
                missing = set(accepted) - {arrival.id for arrival in self._arrivals()} - self._given_up.keys()
                why = f"still {balance.queued} queued" if balance.queued else "emails still arrive"
                if settling.settled(balance, missing=bool(missing)):
                    return balance
            time.sleep(0.1)
        raise NotRecovered(f"{why} after {SETTLE_SECONDS:g} s")

    def _arrivals(self) -> list[Arrival]:
        """Those since the cell began."""
        return self._running.box.arrivals()[self._first :]

    def _note_given_up(self) -> None:
        now = time.perf_counter_ns()
        for email_id in given_up(self._running) - self._given_up_before:
            self._given_up.setdefault(email_id, now)

    def _own_counters(self, load_facts: dict[str, Any], balance: Balance | None) -> Counters:
        """The strategy's own counters for this cell. A counter that was killed with its process is None."""
        if balance is None:
            return Counters()
        master_died = self._running.subject.number == 3 and self._fault in ("master-kill", "all-term")
        counters_are_old = master_died or self._fault == "redis-restored" or self._fault in FAILOVERS
        same_server = self._fault not in NEW_SERVER and all(record[4] for record in load_facts["records"])
        return Counters(
            queued=balance.queued,
            done=None if counters_are_old else difference(self._before.done, balance.done),
            accepted=difference(self._before.accepted, balance.accepted) if same_server else None,
        )

    def _report(self, load_facts: dict[str, Any], balance: Balance | None, broken: list[str]) -> dict[str, Any]:
        late = {arrival for arrival in self._arrivals() if self._is_of_another_cell(arrival)}
        found = account(
            load_facts["records"],
            [arrival for arrival in self._arrivals() if arrival not in late],
            self._tag,
            refusals=[fault for fault in self._running.box.mail_faults() if fault.what.isdigit()],
            given_up=self._given_up,
            counters=self._own_counters(load_facts, balance),
        )
        promised = promise(self._subject, self._fault)
        back_ms = max((recovery_ms(found.outcomes, injection) for injection in self.injections), default=0.0)
        return {
            "subject": self._subject,
            "fault": self._fault,
            "injections": len(self.injections),
            **found.to_dict(),
            "unreplicated": sum(injection.unreplicated for injection in self.injections),
            "recovery_ms": back_ms,
            "late_ms": load_facts["late_p99_ms"],
            "promised": promised.text(),
            "refusals": sorted(promised.refusals),
            "broken": [
                *broken,
                *broken_promises(promised, found, self.injections),
                *too_late(late),
                *back_too_late(promised, back_ms),
            ],
        }

    def _is_of_another_cell(self, arrival: Arrival) -> bool:
        return _TAG.match(arrival.to) is not None and not arrival.to.startswith(f"{self._tag}-")


def recovery_ms(outcomes: Sequence[Outcome], injection: Injection) -> float:
    """The time from the end of a fault until the first email that was due after it is in the inbox."""
    arrivals = [outcome.arrivals[0] for outcome in outcomes if outcome.arrivals and outcome.due >= injection.end]
    return (min(arrivals) - injection.end) / 1e6 if arrivals else 0.0


def difference(before: int | None, now: int | None) -> int | None:
    return None if before is None or now is None else now - before


def too_late(late: Collection[Arrival]) -> Iterator[str]:
    """Emails of earlier cells that arrived after those cells had ended. They are allowed where copies are promised."""
    cells = Counter(found.groups() for arrival in late if (found := _TAG.match(arrival.to)))
    for (subject, fault), count in cells.items():
        if promise(subject, fault).twice is Bound.NONE:
            yield f"{count} emails of the cell {fault} arrived only now"


def back_too_late(promised: Promise, back_ms: float) -> Iterator[str]:
    if promised.back_seconds and back_ms > promised.back_seconds * 1000:
        yield f"back after {back_ms / 1000:.1f} s, promised: within {promised.back_seconds:g} s"


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def run_cells(lab: Lab, box: Mailbox, subject: str, faults: list[str], plan: Plan) -> None:
    """One cell after the other. The strategy is restarted after a broken cell. Raises ChildFailed or OSError."""
    running = Running(lab, EVERY_SUBJECT[subject], box)
    try:
        for fault in faults:
            try:
                running.prepare(fault)
                facts = measure(running, subject, fault, plan, lab)
            except CannotDo as reason:
                say(cell={"subject": subject, "fault": fault, "skipped": str(reason), "broken": []})
                continue
            if facts["broken"] and facts.get("late_ms", 0.0) > TOO_BUSY_MS:
                say(status="repeated, because this machine was too busy")
                running.restart()
                facts = measure(running, subject, fault, plan, lab)
            say(cell=facts)
            if facts["broken"] and fault != faults[-1]:
                running.restart()
    finally:
        running.end()


def measure(running: Running, subject: str, fault: str, plan: Plan, lab: Lab) -> dict[str, Any]:
    say(status="load", fault=fault)
    try:
        running.strategy.wait_until_healthy()
        facts = Cell(running, subject, fault, plan).run(lab)
    except ERRORS as failure:
        facts = {"subject": subject, "fault": fault, "broken": [f"not measured: {failure}"]}
    if facts["broken"]:
        keep_logs(lab, facts)
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description="Inject faults into one strategy.")
    parser.add_argument("subject", choices=EVERY_SUBJECT)
    parser.add_argument("faults", nargs="+", choices=EVERY_INJECTION)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--kills", type=int, required=True, help="how often to inject each fault")
    parser.add_argument("--rate", type=float, required=True, help="emails per second")
    options = parser.parse_args()
    end_on_signals()
    plan = Plan(options.seed, options.kills, options.rate)
    with TemporaryDirectory(prefix="six-ways-faults-", ignore_cleanup_errors=True) as folder:
        lab = Lab(Path(folder))
        with mailbox(lab, TAKE_MS) as box:
            try:
                run_cells(lab, box, options.subject, options.faults, plan)
            except (ChildFailed, OSError) as failure:
                sys.exit(str(failure))


if __name__ == "__main__":
    main()
