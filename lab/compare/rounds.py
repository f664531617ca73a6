"""`make compare`: the six side by side, before a mail server that answers after 100 ms, as a real provider does.

First each strategy gets an email from each client, so that all its parts have begun to work: strategies 5 and 6 accept
without waiting for that. Then come two rounds of N emails. In the one they are due at a steady rate, 5 a second for
each of CLIENTS, whoever still waits for an answer, and every time counts from the moment an email was due
(lab/load/steady.py). In the other there are CLIENTS clients, and each asks again as soon as it has its answer: emails a
second, until the mail server's last 250. The account is of all three rounds.

An email is in the inbox when the mail server has read it; its 250 comes LATENCY_MS later
(common/services/inbox/faults.py). So who waits for the 250 waits longer than the email.

    make compare [N=200] [CLIENTS=10] [LATENCY_MS=100] [STRATEGIES="1 5"]

STEPS=1 measures the steps of chapters 3, 5 and 6 in place of the strategies (STRATEGIES="5-pop 5-move").

With none of these set it writes results/compare.json, .md and .svg, which the README shows, and with STEPS=1 alone
results/compare_steps.json, .md and .svg. Any other run writes the same into results/partial, and so does one in which a
strategy failed to run. The exit status is 1 when an email was not accepted, did not arrive, or came twice.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from common.settings import Settings
from lab.compare.compare_report import PERCENTS, markdown, milliseconds, picture, sizes_of, times_of
from lab.faults.promises import STEPS
from lab.harness.account import Account, account
from lab.harness.command import (
    end_on_signals,
    names_from,
    number_from,
    refuse_settings_in_the_way,
    said,
    write_results,
)
from lab.harness.figures import Facts, percentile
from lab.harness.machine import busy, stamp
from lab.harness.mailbox import Mailbox, mailbox
from lab.harness.processes import LOOK_SECONDS, Child, ChildFailed, Lab, python
from lab.harness.strategies import Strategy, strategies, strategy

PER_CLIENT = 5  # emails a second
SETTLE_SECONDS = 5.0  # without an arrival, while some are missing
QUIET_SECONDS = 0.5  # without an arrival, when all are there: for copies
REFRESH = 10  # times a second
LATE_SHARE = {50: 0.1, 99: 0.5}  # of the answer's time: a load generator that is later than that measures itself
MOST_CPU = 0.8  # of a core: one that needs more may not come to ask

SESSIONS: int = Settings.model_fields["smtp_sessions"].default


@dataclass(frozen=True)
class Plan:
    emails: int = 200
    clients: int = 10
    latency_ms: int = 100

    @property
    def rate(self) -> float:
        return self.clients * PER_CLIENT

    @property
    def most(self) -> float:
        """Emails a second that the mail server takes from one strategy, in all its sessions."""
        return SESSIONS * 1000 / self.latency_ms if self.latency_ms else math.inf

    @property
    def patience(self) -> float:
        """Seconds for which a client waits for its answer: even when all others' emails go first."""
        return 30.0 + self.emails / self.most

    @property
    def limit(self) -> float:
        """Seconds in which a round must have ended, at the pace of the slowest strategy with a single client."""
        return self.patience + self.emails * max(1 / self.rate, self.latency_ms / 1000)


@dataclass
class Line:
    """One strategy, as far as it is known by now."""

    number: int
    name: str
    doing: str = "waits"
    done: float = 0.0  # of 1
    facts: Facts = field(default_factory=dict)
    step: str = ""


def compare(lab: Lab, plan: Plan, lines: list[Line], refresh: Callable[[], object]) -> None:
    """Fill the lines one after another; `refresh` is called whenever there is something new. Raises ChildFailed."""
    for line in lines:
        line.doing = "starts"
        refresh()
        folder = lab.folder / line.name
        folder.mkdir()
        own = Lab(folder)
        with mailbox(own) as box, strategy(own, line.number, box.smtp_url, STEP=line.step) as server:
            rounds = Rounds(own, server, box, plan, line, refresh)
            _, account_of_first = rounds.run("first", plan.clients, rate=0.0)
            box.dial(latency_ms=plan.latency_ms)
            steady, account_of_steady = rounds.run("steady", plan.emails, plan.rate)
            burst, account_of_burst = rounds.run("burst", plan.emails, rate=0.0)
            memory = server.memory()
            processes = len(server.pids())
        line.facts = {
            "strategy": line.name,
            **times(account_of_steady),
            "emails_per_second": rate_of(account_of_burst, plan.latency_ms / 1000),
            "burst_answer_p50_ms": times(account_of_burst)["answer_p50_ms"],
            **sums(account_of_first, account_of_steady, account_of_burst),
            "processes": processes,
            "memory": memory,
            "generator": {
                **{name: steady[name] for name in ("late_p50_ms", "late_p99_ms", "under_way")},
                "cpu": max(steady["cpu"], burst["cpu"]),
            },
        }
        line.doing, line.done = "done", 1.0
        refresh()


@dataclass(frozen=True)
class Rounds:
    """What one strategy is asked for, one round after the other."""

    lab: Lab
    server: Strategy
    box: Mailbox
    plan: Plan
    line: Line
    refresh: Callable[[], object]

    def run(self, tag: str, emails: int, rate: float) -> tuple[Facts, Account]:
        """So many emails, and the wait until they are in the inbox: the load's facts, and the account."""
        self.line.doing = "a steady rate" if rate else "as fast as it can"
        before = len(self.box.arrivals())
        loop = ["--rate", rate, "--exact"] if rate else ["--rate", 0, "--clients", self.plan.clients]
        load = python(
            "lab.load.steady", "--port", self.server.port, *loop, "--count", emails, "--tag", tag,
            "--timeout", self.plan.patience,
        )  # fmt: skip
        with self.lab.child(load, "steady") as child:

            def look() -> None:
                arrived = len(self.box.arrivals())
                self.line.facts |= {**figures_so_far(child), "arrived": arrived}
                self.line.done = arrived / (self.plan.clients + 2 * self.plan.emails)
                self.refresh()

            facts = child.result(self.plan.limit, look)
            accepted = sum(200 <= record[4] < 300 for record in facts["records"])
            wait_until_settled(self.box, before + accepted, SETTLE_SECONDS + self.plan.latency_ms / 1000, look)
        return facts, account(facts["records"], self.box.arrivals()[before:], tag)


def figures_so_far(child: Child) -> Facts:
    """What the load generator has said last."""
    with suppress(IndexError, ValueError):
        facts = json.loads(child.text().splitlines()[-1])
        if isinstance(facts, dict) and facts.get("p50_ms") is not None:
            return {"answer_p50_ms": facts["p50_ms"]}
    return {}


def wait_until_settled(box: Mailbox, expected: int, patience: float, look: Callable[[], object]) -> None:
    """Wait until all have arrived and no more come; or until none has come for so many seconds that none will."""
    seen, since = -1, time.monotonic()
    while True:
        if (count := len(box.arrivals())) != seen:
            seen, since = count, time.monotonic()
        if time.monotonic() - since > (QUIET_SECONDS if count >= expected else patience):
            return
        look()
        time.sleep(LOOK_SECONDS)


def times(steady: Account) -> Facts:
    """In ms, from the moment when each was due; None when there is none."""
    accepted = [story for story in steady.stories if story.accepted]
    found = {
        "answer": [(story.answered - story.due) / 1e6 for story in accepted],
        "inbox": [(story.arrivals[0] - story.due) / 1e6 for story in accepted if story.arrivals],
    }
    return {
        f"{kind}_p{percent}_ms": percentile(values, percent) if values else None
        for kind, values in found.items()
        for percent in PERCENTS[kind]
    }


def rate_of(burst: Account, latency: float) -> float:
    """Emails a second, from the first request to the mail server's last 250, so many seconds after an arrival."""
    arrivals = [story.arrivals[0] for story in burst.stories if story.arrivals]
    seconds = (max(arrivals, default=0) - min(story.asked for story in burst.stories)) / 1e9 + latency
    return len(arrivals) / seconds if arrivals else 0.0


def sums(*accounts: Account) -> Facts:
    names = ("attempted", "acknowledged", "ok", "lost", "duplicated", "recovered", "unexpected")
    return {name: sum(found.numbers()[name] for found in accounts) for name in names}


def live_table(lines: list[Line], latency_ms: int) -> Group:
    grid = Table(
        *("", "HTTP answer, ms\np50 / p95 / p99", "inbox, ms\np50 / p99", "emails/s", "lost", "twice", ""),
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption=f"The mail server says 250 after {latency_ms} ms.",
        caption_justify="left",
    )
    for line in lines:
        facts = line.facts
        if line.doing == "done":
            wrong = [f"[bold red]{facts[name]}[/]" if facts[name] else "0" for name in ("lost", "duplicated")]
            rest = (f"{facts['emails_per_second']:,.0f}", *wrong, "[green]done[/]")
            grid.add_row(line.name, times_of(facts, "answer"), times_of(facts, "inbox"), *rest)
        else:
            answer = milliseconds(facts["answer_p50_ms"]) if "answer_p50_ms" in facts else line.doing
            arrived = f"{facts['arrived']} arrived" if "arrived" in facts else ""
            grid.add_row(line.name, answer, arrived, "", "", "", ProgressBar(1.0, line.done, width=12))
    return Group(grid, *memory_table(lines))


def memory_table(lines: list[Line]) -> Iterator[Table]:
    done = [line for line in lines if line.doing == "done"]
    if not done:
        return
    grid = Table("", "processes", "MiB of each role", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for line in done:
        grid.add_row(line.name, str(line.facts["processes"]), sizes_of(line.facts))
    yield grid


def remarks(plan: Plan, lines: list[Line]) -> Iterator[str]:
    """What else there is to know: first whether the load generator was what has been measured."""
    generators = [line.facts["generator"] for line in lines]
    p50, p99, cpu = (max(facts[name] for facts in generators) for name in ("late_p50_ms", "late_p99_ms", "cpu"))
    yield (
        f"the load generator was {p50:.2f} ms late at p50 and {p99:.1f} ms at p99, which is in the times, "
        f"and took {cpu:.0%} of one core" + (": THAT MAY HAVE BEEN TOO LITTLE" if cpu > MOST_CPU else "")
    )
    for line in lines:
        yield from lateness(line)
    if plan.rate > plan.most:
        yield f"{plan.rate:g} emails a second are MORE THAN {SESSIONS} SESSIONS TAKE, {plan.most:.0f}: they pile up"
    for line in lines:
        yield from remarks_on(line, plan)
    yield "memory is what is resident: pages that processes share, as those of Python itself, are counted for each"


def lateness(line: Line) -> Iterator[str]:
    for percent, share in LATE_SHARE.items():
        late, answer = line.facts["generator"][f"late_p{percent}_ms"], line.facts[f"answer_p{percent}_ms"]
        if answer is not None and late > share * answer:
            times = f"{milliseconds(late)} of the {milliseconds(answer)} ms at p{percent}"
            yield f"{line.name}: {times} are THE LOAD GENERATOR'S, or a busy machine's"


def remarks_on(line: Line, plan: Plan) -> Iterator[str]:
    facts = line.facts
    answer = facts["burst_answer_p50_ms"]
    if answer is not None and answer >= plan.latency_ms > 0 and plan.clients < SESSIONS:
        asked = f"{plan.clients} clients that wait {milliseconds(answer)} ms for each answer"
        yield f"{line.name}: {asked} ask {plan.clients * 1000 / answer:.0f} times a second, which is its limit here"
    if facts["attempted"] > facts["acknowledged"]:
        yield f"{line.name}: {facts['attempted'] - facts['acknowledged']} of {facts['attempted']} NOT ACCEPTED"
    if facts["unexpected"]:
        yield f"{line.name}: {facts['unexpected']} SENT THAT NOBODY HAS ASKED FOR"


def went_well(facts: Facts) -> bool:
    """Nothing is done to the strategies here, so each email should be accepted, and come once."""
    all_came = facts["attempted"] == facts["acknowledged"] == facts["ok"]
    return bool(all_came and not facts["duplicated"] and not facts["unexpected"])


def read_plan(parser: argparse.ArgumentParser) -> Plan:
    return Plan(
        emails=int(number_from(parser, "N", Plan.emails, 1)),
        clients=int(number_from(parser, "CLIENTS", Plan.clients, 1)),
        latency_ms=int(number_from(parser, "LATENCY_MS", Plan.latency_ms, 0)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    refuse_settings_in_the_way(parser)
    steps = bool(os.environ.get("STEPS"))
    lines_of = step_lines() if steps else strategy_lines()
    there = list(lines_of)
    plan, chosen = read_plan(parser), names_from(parser, "STRATEGIES", there)
    end_on_signals()
    console = Console()
    machine = stamp() | {"warning": busy()}
    if machine["warning"]:
        console.print(f"[yellow]{machine['warning']}[/]")
    lines = [lines_of[name] for name in chosen]
    failure = ""
    try:
        with (
            TemporaryDirectory(prefix="six-ways-compare-", ignore_cleanup_errors=True) as folder,
            Live(console=console, refresh_per_second=REFRESH, transient=True) as live,
        ):
            compare(Lab(Path(folder)), plan, lines, lambda: live.update(live_table(lines, plan.latency_ms)))
    except ChildFailed as reason:
        failure = str(reason)
    name = "compare_steps" if steps else "compare"
    report(console, plan, lines, machine, failure, name, whole=(chosen, plan) == (there, Plan()))
    sys.exit(failure or (0 if all(went_well(line.facts) for line in lines) else 1))


def strategy_lines() -> dict[str, Line]:
    return {str(number): Line(number, name_of(number)) for number in strategies(*range(1, 10))}


def step_lines() -> dict[str, Line]:
    """As `make faults STEPS=1` names them: 5-pop."""
    return {name: Line(step.number, name, step=step.settings["STEP"]) for name, step in STEPS.items()}


def report(
    console: Console,
    plan: Plan,
    lines: list[Line],
    machine: dict[str, Any],
    failure: str,
    name: str = "compare",
    *,
    whole: bool,
) -> None:
    """Show and save what has been measured; after a failure that is a part, and says so."""
    done = [line for line in lines if line.doing == "done"]
    if not done:
        return
    said_of_run = list(remarks(plan, done))
    if failure:
        said_of_run.append(f"NOT ALL WAS MEASURED: {failure}")
    console.print(live_table(lines, plan.latency_ms))
    for remark in said_of_run:
        console.print(remark, highlight=False, markup=False)
    facts = {
        "machine": machine,
        "settings": {"N": plan.emails, "CLIENTS": plan.clients, "LATENCY_MS": plan.latency_ms, "rate": plan.rate},
        "remarks": said_of_run,
        "strategies": [line.facts for line in done],
    }
    texts = {"md": markdown(facts), "svg": picture(facts)}
    console.print(f"[dim]{said(write_results(name, facts, whole=whole and not failure, **texts))}[/]")


def name_of(number: int) -> str:
    [folder] = sorted(path.parent.name for path in Path().glob(f"{number}_*/server.py"))
    return folder
