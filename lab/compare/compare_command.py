"""`make compare`: the six side by side, with a mail server that answers after 100 ms, as a real provider does.

First each client sends one email to each strategy, so that all its processes have started to work: strategies 5 and 6
accept emails before that. Two rounds of N emails follow. In the first, emails are due at a steady rate of 5 per second
and client, however many still wait for their answers, and every time is measured from the moment when an email was due
(lab/load/steady.py). In the second, each of CLIENTS clients sends its next request as soon as it has its answer; this
gives the emails per second, until the mail server's last 250. The account covers all three rounds.

An email is in the inbox when the mail server has read it. Its 250 comes LATENCY_MS later
(common/services/inbox/faults.py), so a caller that waits for the 250 waits longer than the email takes.

    make compare [N=200] [CLIENTS=10] [LATENCY_MS=100] [STRATEGIES="1 5"]

STEPS=1 measures the steps of chapters 3, 5 and 6 instead of the strategies (STRATEGIES="5-pop 5-move"). ENGINES=1
measures strategies 5 and 6 on each of their engines (STRATEGIES="5 5r"); an engine that is not installed is skipped.

A run with none of these set writes results/compare.json, .md and .svg, which the README shows. With STEPS=1 or
ENGINES=1 alone it writes results/compare_steps or compare_engines.json, .md and .svg. Any other run, and one in which a
strategy failed to run or an engine was skipped, writes the same files into results/partial. The exit status is 1 when
an email was not accepted, did not arrive, or arrived twice.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from lab.compare.compare_report import markdown, milliseconds, picture, sizes_of, times_of
from lab.compare.plan import Plan, read_plan
from lab.compare.remarks import remarks
from lab.compare.rounds import Line, all_delivered_once, compare
from lab.faults.promises import STEPS, SUBJECTS
from lab.harness.command import end_on_signals, files_written, names_from, refuse_env_overrides, write_results
from lab.harness.engines import missing
from lab.harness.machine import busy, describe_machine
from lab.harness.processes import ChildFailed, Lab
from lab.harness.strategies import strategies

REFRESH = 10  # times per second
ENGINES = ("5", "5r", "6", "6s", "6j")  # the subjects of ENGINES=1


def live_table(lines: list[Line], latency_ms: int) -> Group:
    grid = Table(
        *("", "HTTP answer, ms\np50 / p95 / p99", "inbox, ms\np50 / p99", "emails/s", "lost", "twice", ""),
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption=f"The mail server sends its 250 after {latency_ms} ms.",
        caption_justify="left",
    )
    for line in lines:
        facts = line.facts
        if line.status == "done":
            wrong = [f"[bold red]{facts[name]}[/]" if facts[name] else "0" for name in ("lost", "duplicated")]
            rest = (f"{facts['emails_per_second']:,.0f}", *wrong, "[green]done[/]")
            grid.add_row(line.name, times_of(facts, "answer"), times_of(facts, "inbox"), *rest)
        else:
            answer = milliseconds(facts["answer_p50_ms"]) if "answer_p50_ms" in facts else line.status
            arrived = f"{facts['arrived']} arrived" if "arrived" in facts else ""
            grid.add_row(line.name, answer, arrived, "", "", "", ProgressBar(1.0, line.done, width=12))
    return Group(grid, *memory_table(lines))


def memory_table(lines: list[Line]) -> Iterator[Table]:
    done = [line for line in lines if line.status == "done"]
    if not done:
        return
    grid = Table("", "processes", "MiB of each role", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for line in done:
        grid.add_row(line.name, str(line.facts["processes"]), sizes_of(line.facts))
    yield grid


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
    """Show and save what has been measured. After a failure it is saved as a partial run, with the reason."""
    done = [line for line in lines if line.status == "done"]
    if not done:
        return
    remarks_on_run = list(remarks(plan, done))
    if failure:
        remarks_on_run.append(f"not everything was measured: {failure}")
    console.print(live_table(lines, plan.latency_ms))
    for remark in remarks_on_run:
        console.print(remark, highlight=False, markup=False)
    facts = {
        "machine": machine,
        "settings": {"N": plan.emails, "CLIENTS": plan.clients, "LATENCY_MS": plan.latency_ms, "rate": plan.rate},
        "remarks": remarks_on_run,
        "strategies": [line.facts for line in done],
    }
    texts = {"md": markdown(facts), "svg": picture(facts)}
    console.print(f"[dim]{files_written(write_results(name, facts, whole=whole and not failure, **texts))}[/]")


def name_of(number: int) -> str:
    [folder] = sorted(path.parent.name for path in Path().glob(f"{number}_*/server.py"))
    return folder


def strategy_lines() -> dict[str, Line]:
    return {str(number): Line(number, name_of(number)) for number in strategies(*range(1, 10))}


def step_lines() -> dict[str, Line]:
    """The lines, by their names in `make faults STEPS=1`, such as 5-pop."""
    return {name: Line(step.number, name, settings=step.settings) for name, step in STEPS.items()}


def engine_lines() -> dict[str, Line]:
    """The lines, by their names in `make faults`, such as 5r."""
    return {name: Line(SUBJECTS[name].number, name, settings=SUBJECTS[name].settings) for name in ENGINES}


def chosen_lines() -> tuple[str, dict[str, Line]]:
    """The name of the results, and all lines that it can have."""
    if os.environ.get("ENGINES"):
        return "compare_engines", engine_lines()
    return ("compare_steps", step_lines()) if os.environ.get("STEPS") else ("compare", strategy_lines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    refuse_env_overrides(parser)
    name, lines_of = chosen_lines()
    available = list(lines_of)
    plan, chosen = read_plan(parser), names_from(parser, "STRATEGIES", available)
    end_on_signals()
    console = Console()
    machine = describe_machine() | {"warning": busy()}
    if machine["warning"]:
        console.print(f"[yellow]{machine['warning']}[/]")
    reasons = {subject: missing(lines_of[subject].settings) for subject in chosen}
    for subject, reason in reasons.items():
        if reason:
            console.print(f"[yellow]{subject} is skipped: {reason}[/]")
    lines = [lines_of[subject] for subject, reason in reasons.items() if not reason]
    failure = ""
    try:
        with (
            TemporaryDirectory(prefix="six-ways-compare-", ignore_cleanup_errors=True) as folder,
            Live(console=console, refresh_per_second=REFRESH, transient=True) as live,
        ):
            compare(Lab(Path(folder)), plan, lines, lambda: live.update(live_table(lines, plan.latency_ms)))
    except ChildFailed as reason:
        failure = str(reason)
    whole = (chosen, plan) == (available, Plan()) and len(lines) == len(chosen)
    report(console, plan, lines, machine, failure, name, whole=whole)
    sys.exit(failure or (0 if all(all_delivered_once(line.facts) for line in lines) else 1))
