"""The rounds of `make compare` with one strategy after the other, and the figures that come out of them."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from lab.compare.compare_report import PERCENTS
from lab.compare.plan import Plan
from lab.harness.account import Account, account
from lab.harness.figures import Facts, percentile
from lab.harness.mailbox import Mailbox, mailbox
from lab.harness.processes import POLL_SECONDS, Child, Lab, python
from lab.harness.strategies import Strategy, strategy

SETTLE_SECONDS = 5.0  # when emails are missing: how long to wait for them
QUIET_SECONDS = 0.5  # when all emails have arrived: how long to wait for further copies


@dataclass
class Line:
    """One strategy's line of the table, with what has been measured so far."""

    number: int
    name: str
    status: str = "waits"
    done: float = 0.0  # from 0 to 1
    facts: Facts = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)


def compare(lab: Lab, plan: Plan, lines: list[Line], refresh: Callable[[], object]) -> None:
    """Fill the lines one after the other. Calls `refresh` after each change. Raises ChildFailed."""
    for line in lines:
        line.status = "starts"
        refresh()
        folder = lab.folder / line.name
        folder.mkdir()
        line.facts = measure(Lab(folder), plan, line, refresh)
        line.status, line.done = "done", 1.0
        refresh()


def measure(lab: Lab, plan: Plan, line: Line, refresh: Callable[[], object]) -> Facts:
    """Run all rounds with one strategy. Raises ChildFailed."""
    with mailbox(lab) as box, strategy(lab, line.number, box.smtp_url, **line.settings) as server:
        rounds = Rounds(lab, server, box, plan, line, refresh)
        _, account_of_first = rounds.run("first", plan.clients, rate=0.0)
        box.dial(latency_ms=plan.latency_ms)
        steady, account_of_steady = rounds.run("steady", plan.emails, plan.rate)
        burst, account_of_burst = rounds.run("burst", plan.emails, rate=0.0)
        memory = server.memory()
        processes = len(server.pids())
    return {
        "strategy": line.name,
        **times(account_of_steady),
        "emails_per_second": rate_of(account_of_burst, plan.latency_ms / 1000),
        "burst_answer_p50_ms": times(account_of_burst)["answer_p50_ms"],
        **sums(account_of_first, account_of_steady, account_of_burst),
        "processes": processes,
        "memory": memory,
        "generator": {
            **{name: steady[name] for name in ("late_p50_ms", "late_p99_ms", "max_in_flight")},
            "cpu": max(steady["cpu"], burst["cpu"]),
        },
    }


@dataclass(frozen=True)
class Rounds:
    """Runs one round after the other with one strategy."""

    lab: Lab
    server: Strategy
    box: Mailbox
    plan: Plan
    line: Line
    refresh: Callable[[], object]

    def run(self, tag: str, emails: int, rate: float) -> tuple[Facts, Account]:
        """Send this number of emails and wait until they are in the inbox. Returns the load's facts and the account.

        `rate` is in emails per second; 0 means as fast as the clients can.
        """
        self.line.status = "at a steady rate" if rate else "at full speed"
        before = len(self.box.arrivals())
        loop = ["--rate", rate, "--exact"] if rate else ["--rate", 0, "--clients", self.plan.clients]
        load = python(
            "lab.load.steady", "--port", self.server.port, *loop, "--count", emails, "--tag", tag,
            "--timeout", self.plan.answer_timeout,
        )  # fmt: skip
        with self.lab.child(load, "steady") as child:

            def update() -> None:
                arrived = len(self.box.arrivals())
                self.line.facts |= {**figures_so_far(child), "arrived": arrived}
                self.line.done = arrived / (self.plan.clients + 2 * self.plan.emails)
                self.refresh()

            facts = child.result(self.plan.round_timeout, update)
            accepted = sum(200 <= record[4] < 300 for record in facts["records"])
            give_up_seconds = SETTLE_SECONDS + self.plan.latency_ms / 1000
            wait_until_settled(self.box, before + accepted, give_up_seconds, update)
        return facts, account(facts["records"], self.box.arrivals()[before:], tag)


def figures_so_far(child: Child) -> Facts:
    """The newest figures that the load generator has printed."""
    with suppress(IndexError, ValueError):
        facts = json.loads(child.text().splitlines()[-1])
        if isinstance(facts, dict) and facts.get("p50_ms") is not None:
            return {"answer_p50_ms": facts["p50_ms"]}
    return {}


def wait_until_settled(box: Mailbox, expected: int, give_up_seconds: float, update: Callable[[], object]) -> None:
    """Wait until `expected` emails have arrived and no more come, or until none has come for `give_up_seconds`."""
    seen, since = -1, time.monotonic()
    while True:
        if (count := len(box.arrivals())) != seen:
            seen, since = count, time.monotonic()
        if time.monotonic() - since > (QUIET_SECONDS if count >= expected else give_up_seconds):
            return
        update()
        time.sleep(POLL_SECONDS)


def times(steady: Account) -> Facts:
    """Percentiles in ms, from the moment when each email was due; None if no email was accepted or arrived."""
    accepted = [outcome for outcome in steady.outcomes if outcome.accepted]
    found = {
        "answer": [(outcome.answered - outcome.due) / 1e6 for outcome in accepted],
        "inbox": [(outcome.arrivals[0] - outcome.due) / 1e6 for outcome in accepted if outcome.arrivals],
    }
    return {
        f"{kind}_p{percent}_ms": percentile(values, percent) if values else None
        for kind, values in found.items()
        for percent in PERCENTS[kind]
    }


def rate_of(burst: Account, latency: float) -> float:
    """Emails per second, from the first request to the mail server's last 250, `latency` seconds after an arrival."""
    arrivals = [outcome.arrivals[0] for outcome in burst.outcomes if outcome.arrivals]
    seconds = (max(arrivals, default=0) - min(outcome.asked for outcome in burst.outcomes)) / 1e9 + latency
    return len(arrivals) / seconds if arrivals else 0.0


def sums(*accounts: Account) -> Facts:
    names = ("attempted", "acknowledged", "ok", "lost", "duplicated", "recovered", "unexpected")
    return {name: sum(found.numbers()[name] for found in accounts) for name in names}


def all_delivered_once(facts: Facts) -> bool:
    """Whether each email was accepted and delivered once. No faults are injected here, so this should be true."""
    all_arrived = facts["attempted"] == facts["acknowledged"] == facts["ok"]
    return bool(all_arrived and not facts["duplicated"] and not facts["unexpected"])
