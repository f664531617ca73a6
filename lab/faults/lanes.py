"""`make faults`: kill things, and count.

For each strategy and each thing that can be done to it (lab/faults/promises.py): emails at a steady rate, the fault at
random moments, several times, the wait until everything has settled, and the account of it (lab/harness/account.py)
beside what was promised. The strategies run side by side, a few at a time; each has a mail server, a Redis and a folder
of its own.

    make faults [KILLS=10] [SEED=2016] [RATE=40] [STRATEGIES="5 6"] [FAULTS="worker-kill redis-tail"] [LANES=6]

STEPS=1 does it to the steps of chapters 3, 5 and 6 in place of the strategies. KILLS is how often each fault is done in
its cell. The same SEED makes the same faults at the same moments, for each cell alone too:
make faults STRATEGIES=5 FAULTS=worker-kill SEED=7. LANES is how many strategies run side by side: take fewer on a
machine that is busy.

A run with none of these set, but for LANES, writes results/faults.json and .md, which the READMEs show, and one with
STEPS=1 results/steps.json and .md; any other writes the same into results/partial. The exit status is 1 when a promise
was broken.
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

from lab.faults.faults_report import markdown, measured
from lab.faults.judge import AT_A_TIME
from lab.faults.promises import FAULTS, STEPS, SUBJECTS, faults_of
from lab.faults.running import LEASE_SECONDS, SEND_SECONDS, TAKE_MS
from lab.harness.account import NUMBERS
from lab.harness.command import end_on_signals, names_from, number_from, refuse_settings_in_the_way, said, write_results
from lab.harness.figures import Facts
from lab.harness.machine import busy, stamp
from lab.harness.processes import Child, Lab, python
from lab.harness.strategies import strategies

LANES = 3 * (os.cpu_count() or 1)  # strategies at a time: mostly they wait for what was killed to come back
LOOK_SECONDS = 0.1
KILLS, SEED, RATE = 10, "2016", 40
MAX_RATE = 0.6 * AT_A_TIME / (TAKE_MS / 1000)  # emails a second; with more, they pile up without any fault
SUBJECTS_AND_STEPS = SUBJECTS | STEPS
END_SECONDS = 45.0  # a lane may have a strategy to end that drains, its Valkey, and a load that waits for answers


@dataclass
class Lane:
    """One subject's cells, in a process of its own."""

    subject: str
    faults: list[str]
    fault: str = ""
    doing: str = "waits"
    cells: list[Facts] = field(default_factory=list)
    _read: int = 0

    def follow(self, child: Child) -> None:
        """Take in what the process has said since the last time."""
        with open(child.output, "rb") as file:
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")[0]
        self._read += len(whole) + bool(whole)
        for line in whole.splitlines():
            if not line.startswith(b'{"'):  # the last words of one that fails
                continue
            facts = json.loads(line)
            if "cell" in facts:
                self.cells.append(facts["cell"])
            else:
                self.fault = facts.get("fault", self.fault)
                self.doing = facts["doing"]

    def end(self, child: Child) -> None:
        """The process has ended. What it has not measured stays so; if it failed behind its last cell, that broke."""
        if left := self.faults[len(self.cells) :]:
            reason = f"not measured: {child.failure()}"
            self.cells += [{"subject": self.subject, "fault": fault, "broken": [reason]} for fault in left]
        elif child.process.returncode:
            self.cells[-1]["broken"].append(f"it did not end as it should: {child.failure()}")
        self.doing = "done"

    @property
    def broken(self) -> int:
        return sum(bool(cell["broken"]) for cell in self.cells)


def run_lanes(lab: Lab, lanes: list[Lane], options: list[object], live: Live, most: int = LANES) -> None:
    """The longest first, `most` at a time. A lane that fails leaves its cells unmeasured, and the others go on."""
    waiting = sorted(lanes, key=lambda lane: len(lane.faults))
    running: dict[str, tuple[Lane, Child, ExitStack]] = {}
    with ExitStack() as everything, ending_together(running):
        while waiting or running:
            while waiting and len(running) < most:
                lane = waiting.pop()
                lane.doing = "starts"
                stack = everything.enter_context(ExitStack())
                command = python("lab.faults.cell", lane.subject, *lane.faults, *options)
                process = lab.child(command, lane.subject, False, END_SECONDS, TMPDIR=lab.folder)
                running[lane.subject] = (lane, stack.enter_context(process), stack)
            for lane, child, stack in list(running.values()):
                ended = child.process.poll() is not None
                lane.follow(child)
                if ended:
                    lane.end(child)
                    stack.close()
                    del running[lane.subject]
            live.update(progress(lanes))
            time.sleep(LOOK_SECONDS)


@contextmanager
def ending_together(running: dict[str, tuple[Lane, Child, ExitStack]]) -> Iterator[None]:
    """If this is interrupted, tell all lanes before the first is waited for."""
    try:
        yield
    finally:
        for _, child, _ in running.values():
            child.process.terminate()


def progress(lanes: list[Lane]) -> Table:
    grid = Table("", "", "now", "", "lost", "twice", "broken promises", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for lane in lanes:
        done = len(lane.cells)
        lost, twice = (sum(cell.get(name, 0) for cell in lane.cells) for name in ("lost", "duplicated"))
        grid.add_row(
            SUBJECTS_AND_STEPS[lane.subject].title,
            ProgressBar(len(lane.faults), done, width=16),
            lane.fault if lane.doing not in ("done", "waits") else "",
            lane.doing,
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
            title=SUBJECTS_AND_STEPS[lane.subject].title,
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
    """The sums of Jepsen's fields, and how many faults were done."""
    done = [cell.get("injections", 0) for cell in cells if cell["fault"] != "none"]
    return {name: sum(cell.get(name, 0) for cell in cells) for name in NUMBERS} | {"faults": sum(done)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    refuse_settings_in_the_way(parser)
    subjects = STEPS if os.environ.get("STEPS") else SUBJECTS
    there = [name for name, subject in subjects.items() if subject.number in strategies(subject.number)]
    chosen, faults = names_from(parser, "STRATEGIES", there), names_from(parser, "FAULTS", list(FAULTS))
    kills, rate = int(number_from(parser, "KILLS", KILLS, 1)), number_from(parser, "RATE", RATE, 1, MAX_RATE)
    seed, most = os.environ.get("SEED") or SEED, int(number_from(parser, "LANES", LANES, 1))
    lanes = [Lane(name, [f for f in faults_of(subjects[name]) if f in faults]) for name in chosen]
    lanes = [lane for lane in lanes if lane.faults]
    if not lanes:
        parser.error("none of these faults can be done to these strategies")
    end_on_signals()
    console = Console()
    machine: dict[str, Any] = stamp() | {"warning": busy()}
    if machine["warning"]:
        console.print(f"[yellow]{machine['warning']}[/]")
    begin = time.monotonic()
    with (
        TemporaryDirectory(prefix="six-ways-faults-", ignore_cleanup_errors=True) as folder,
        Live(console=console, transient=True) as live,
    ):
        run_lanes(Lab(Path(folder)), lanes, ["--seed", seed, "--kills", kills, "--rate", rate], live, most)
    cells = [cell for lane in lanes for cell in lane.cells]
    facts: dict[str, Any] = {
        "machine": machine,
        "settings": {
            "SEED": seed,
            "KILLS": kills,
            "RATE": rate,
            "LEASE_SECONDS": LEASE_SECONDS,
            "SMTP_SEND_SECONDS": SEND_SECONDS,
            "take_ms": TAKE_MS,
            "appendfsync": "always",
        },
        "seconds": round(time.monotonic() - begin),
        "totals": totals(cells),
        "cells": cells,
    }
    console.print(final_table(lanes))
    for name, number in facts["totals"].items():
        console.print(f"{name:<13}{number:>8,}", highlight=False)
    console.print(f"seed {seed}, {facts['seconds']} s; a promise is in lab/faults/promises.py", highlight=False)
    usual = (chosen, faults, kills, seed, rate) == (there, list(FAULTS), KILLS, SEED, RATE)
    whole = usual and all("lost" in cell for cell in cells)
    name = "steps" if subjects is STEPS else "faults"
    console.print(f"[dim]{said(write_results(name, facts, whole=whole, md=markdown(facts)))}[/]")
    skipped = sum("skipped" in cell for cell in cells)
    if broken := sum(bool(cell["broken"]) for cell in cells):
        console.print(f"[bold red]{broken} of {len(cells)} cells broke a promise[/]")
        sys.exit(1)
    if skipped:
        console.print(f"[yellow]{skipped} of {len(cells)} cells were not measured on this machine[/]")
    if kept := len(cells) - skipped:
        console.print(f"[green]{'the promise was' if kept == 1 else f'all {kept} promises were'} kept[/]")
