"""`make faults`: kill processes, make servers misbehave, and count the emails that are lost.

For each strategy and each fault (lab/faults/promises.py) the lab sends emails at a steady rate, injects the fault
several times at random moments, waits until all work is done, and compares the account (lab/harness/account.py) with
the promise. A few strategies run at a time. Each has a mail server, a Redis and a folder of its own.

    make faults [KILLS=10] [SEED=2016] [RATE=40] [STRATEGIES="5 6"] [FAULTS="worker-kill redis-tail"] [LANES=6]

KILLS is how often each fault is injected. STEPS=1 tests the steps of chapters 3, 5 and 6 instead of the strategies.
TOPOLOGY=sentinel, TOPOLOGY=cluster or TOPOLOGY=all tests strategies 4 to 6 with a Redis that has replicas
(lab/faults/topology_promises.py), by default with KILLS=3 and LANES=1; REDIS_SERVER=/usr/bin/redis-server runs an
installed Redis there. The same SEED makes the same faults at the same moments, also for a single cell: make faults
STRATEGIES=5 FAULTS=worker-kill SEED=7. LANES is how many strategies run at a time; use fewer on a busy machine.

A run with none of these set except LANES writes results/faults.json and .md, which the READMEs show. With STEPS=1 it
writes results/steps.json and .md, with TOPOLOGY=all results/faults_topology.json and .md. Any other run writes the same
files into results/partial. The exit status is 1 when a promise was broken; results/partial/broken then has the logs of
the broken cells.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lab.faults.catalogue import EVERY_SUBJECT, faults_of
from lab.faults.faults_report import markdown, measured
from lab.faults.judge import MAX_CONCURRENT
from lab.faults.running import LEASE_SECONDS, SEND_SECONDS, TAKE_MS
from lab.faults.suites import Suite, chosen_suite
from lab.harness.account import NUMBERS
from lab.harness.command import (
    end_on_signals,
    files_written,
    names_from,
    number_from,
    refuse_env_overrides,
    write_results,
)
from lab.harness.figures import Facts
from lab.harness.machine import busy, describe_machine
from lab.harness.nodes import server_settings
from lab.harness.processes import Child, Lab, python
from lab.harness.strategies import strategies

POLL_SECONDS = 0.1
SEED, RATE = "2016", 40
MAX_RATE = 0.6 * MAX_CONCURRENT / (TAKE_MS / 1000)  # emails per second; above this they queue up without any fault
END_SECONDS = 45.0  # a lane may have to stop a strategy that drains, its Valkey, and a load that waits for answers


@dataclass(frozen=True)
class Settings:
    """What a run does. `subjects` and `faults` are names of lab/faults/promises.py."""

    subjects: list[str]
    faults: list[str]
    kills: int
    seed: str = SEED
    lanes: int = field(default=1, compare=False)
    rate: float = RATE


@dataclass
class Lane:
    """The cells of one subject, measured in a process of their own."""

    subject: str
    faults: list[str]
    fault: str = ""
    status: str = "waits"
    cells: list[Facts] = field(default_factory=list)
    _read: int = 0

    def follow(self, child: Child) -> None:
        """Read what the process has printed since the last call."""
        with open(child.file, "rb") as file:
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")[0]
        self._read += len(whole) + bool(whole)
        for line in whole.splitlines():
            if not line.startswith(b'{"'):  # the error message of a process that fails
                continue
            facts = json.loads(line)
            if "cell" in facts:
                self.cells.append(facts["cell"])
            else:
                self.fault = facts.get("fault", self.fault)
                self.status = facts["status"]

    def end(self, child: Child) -> None:
        """The process has ended. Cells that it has not measured are broken. So is the last, if it failed after that."""
        if left := self.faults[len(self.cells) :]:
            reason = f"not measured: {child.failure()}"
            self.cells += [{"subject": self.subject, "fault": fault, "broken": [reason]} for fault in left]
        elif child.process.returncode:
            self.cells[-1]["broken"].append(f"the process failed at its end: {child.failure()}")
        self.status = "done"

    @property
    def broken(self) -> int:
        return sum(bool(cell["broken"]) for cell in self.cells)


def run_lanes(lab: Lab, lanes: list[Lane], options: list[object], live: Live, most: int) -> None:
    """Start the longest lanes first, `most` at a time. If a lane fails, the others go on."""
    waiting = sorted(lanes, key=lambda lane: len(lane.faults))
    running: dict[str, tuple[Lane, Child, ExitStack]] = {}
    with ExitStack() as everything, terminating_all(running):
        while waiting or running:
            while waiting and len(running) < most:
                lane = waiting.pop()
                lane.status = "starts"
                stack = everything.enter_context(ExitStack())
                command = python("lab.faults.cell", lane.subject, *lane.faults, *options)
                settings = {"TMPDIR": lab.folder, **server_settings()}
                process = lab.child(command, lane.subject, False, END_SECONDS, **settings)
                running[lane.subject] = (lane, stack.enter_context(process), stack)
            for lane, child, stack in list(running.values()):
                ended = child.process.poll() is not None
                lane.follow(child)
                if ended:
                    lane.end(child)
                    stack.close()
                    del running[lane.subject]
            live.update(progress(lanes))
            time.sleep(POLL_SECONDS)


@contextmanager
def terminating_all(running: dict[str, tuple[Lane, Child, ExitStack]]) -> Iterator[None]:
    """If this is interrupted, send SIGTERM to all lanes before waiting for the first one."""
    try:
        yield
    finally:
        for _, child, _ in running.values():
            child.process.terminate()


def progress(lanes: list[Lane]) -> Table:
    grid = Table("", "", "now", "", "lost", "twice", "broken promises", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for lane in lanes:
        lost, twice = (sum(cell.get(name, 0) for cell in lane.cells) for name in ("lost", "duplicated"))
        grid.add_row(
            EVERY_SUBJECT[lane.subject].title,
            ProgressBar(len(lane.faults), len(lane.cells), width=16),
            lane.fault if lane.status not in ("done", "waits") else "",
            lane.status,
            str(lost),
            str(twice),
            f"[bold red]{lane.broken}[/]" if lane.broken else "0",
        )
    return grid


def final_table(lanes: list[Lane]) -> Group:
    grids: list[Table] = []
    for lane in lanes:
        grid = Table(
            *("fault", "promised", "measured", "accepted", "ok", "failed"),
            title=EVERY_SUBJECT[lane.subject].title,
            title_justify="left",
            title_style="bold",
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        for cell in lane.cells:
            numbers = [f"{cell[name]}" if name in cell else "" for name in ("acknowledged", "ok", "failed")]
            kept = not cell["broken"]
            text = measured(cell) if kept else f"{measured(cell)}\nBROKEN: {'; '.join(cell['broken'])}"
            style = "" if kept else "bold red"
            grid.add_row(cell["fault"], cell.get("promised", ""), Text(text, style), *numbers)
        grids.append(grid)
    return Group(*grids)


def totals(cells: list[Facts]) -> dict[str, int]:
    """The sums of the numbers of the account, and how many faults were injected."""
    injected = [cell.get("injections", 0) for cell in cells if cell["fault"] != "none"]
    return {name: sum(cell.get(name, 0) for cell in cells) for name in NUMBERS} | {"faults": sum(injected)}


def facts_of(settings: Settings, machine: dict[str, Any], seconds: float, cells: list[Facts]) -> dict[str, Any]:
    """What is saved as JSON."""
    return {
        "machine": machine,
        "settings": {
            "SEED": settings.seed,
            "KILLS": settings.kills,
            "RATE": settings.rate,
            "LEASE_SECONDS": LEASE_SECONDS,
            "SMTP_SEND_SECONDS": SEND_SECONDS,
            "take_ms": TAKE_MS,
            "appendfsync": "always",
        },
        "seconds": round(seconds),
        "totals": totals(cells),
        "cells": cells,
    }


def read_settings(parser: argparse.ArgumentParser, suite: Suite, available: list[str]) -> Settings:
    return Settings(
        subjects=names_from(parser, "STRATEGIES", available),
        faults=names_from(parser, "FAULTS", list(suite.faults)),
        kills=int(number_from(parser, "KILLS", suite.kills, 1)),
        rate=number_from(parser, "RATE", RATE, 1, MAX_RATE),
        seed=os.environ.get("SEED") or SEED,
        lanes=int(number_from(parser, "LANES", suite.lanes, 1)),
    )


def measure(settings: Settings, lanes: list[Lane], console: Console) -> dict[str, Any]:
    machine: dict[str, Any] = describe_machine() | {"warning": busy()}
    if machine["warning"]:
        console.print(f"[yellow]{machine['warning']}[/]")
    begin = time.monotonic()
    with (
        TemporaryDirectory(prefix="six-ways-faults-", ignore_cleanup_errors=True) as folder,
        Live(console=console, transient=True) as live,
    ):
        options: list[object] = ["--seed", settings.seed, "--kills", settings.kills, "--rate", settings.rate]
        run_lanes(Lab(Path(folder)), lanes, options, live, settings.lanes)
    return facts_of(settings, machine, time.monotonic() - begin, [cell for lane in lanes for cell in lane.cells])


def show_verdict(console: Console, cells: list[Facts]) -> None:
    """Whether the promises were kept. Exits with status 1 when one was broken."""
    skipped = sum("skipped" in cell for cell in cells)
    if broken := sum(bool(cell["broken"]) for cell in cells):
        console.print(f"[bold red]{broken} of {len(cells)} cells broke a promise[/]")
        sys.exit(1)
    if skipped:
        console.print(f"[yellow]{skipped} of {len(cells)} cells were not measured on this machine[/]")
    if kept := len(cells) - skipped:
        console.print(f"[green]{'the promise was' if kept == 1 else f'all {kept} promises were'} kept[/]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    refuse_env_overrides(parser)
    suite = chosen_suite(parser)
    available = [name for name, subject in suite.subjects.items() if subject.number in strategies(subject.number)]
    settings = read_settings(parser, suite, available)
    chosen = {name: faults_of(suite.subjects[name]) for name in settings.subjects}
    lanes = [Lane(name, [fault for fault in faults if fault in settings.faults]) for name, faults in chosen.items()]
    lanes = [lane for lane in lanes if lane.faults]
    if not lanes:
        parser.error("none of these faults applies to these strategies")
    end_on_signals()
    console = Console()
    facts = measure(settings, lanes, console)
    console.print(final_table(lanes))
    for name, number in facts["totals"].items():
        console.print(f"{name:<13}{number:>8,}", highlight=False)
    about = f"seed {settings.seed}, {facts['seconds']} s; the promises are in {suite.promises}"
    console.print(about, highlight=False)
    default = Settings(available, list(suite.faults), suite.kills)
    whole = suite.is_whole and settings == default and all("lost" in cell for cell in facts["cells"])
    console.print(f"[dim]{files_written(write_results(suite.name, facts, whole=whole, md=markdown(facts)))}[/]")
    show_verdict(console, facts["cells"])
