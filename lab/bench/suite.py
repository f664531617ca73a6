"""`make bench`: how fast the parts are, each figure beside a reference measured in the same run.

Rounds alternate between the two, and the ratio is computed for each round: on a shared machine ratios vary less than
rates. Slow benchmarks, and those that measure growth, have one round, and their row says so. Prints a table and writes
results/bench.json. The exit status is 1 when a target is missed. If a benchmark fails to run, the rows before it are
saved as a partial run, in results/partial.

`make bench BENCH_ONLY="mailer burst"` measures only these groups; you can also name them as arguments.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from lab.bench import (
    accepting,
    acknowledging,
    batcher,
    burst,
    cost,
    delivering,
    engines,
    idle,
    log,
    mailer,
    parts,
    queue,
    scale,
    web,
)
from lab.bench.parts import Breakdown
from lab.harness.command import end_on_signals, files_written, refuse_env_overrides, write_results
from lab.harness.figures import Row, Spread, format_number
from lab.harness.machine import busy, describe_machine
from lab.harness.processes import ChildFailed, Lab
from lab.harness.strategies import strategies

Benchmark = Callable[[Lab], Iterator[Row | Breakdown]]


def of_each(benchmark: Callable[[int, Lab], Iterator[Row | Breakdown]], *numbers: int) -> dict[str, Benchmark]:
    """The same benchmark for each of these strategies that exists."""
    name = benchmark.__name__.replace("_", " ")
    return {f"strategy {number} {name}": partial(benchmark, number) for number in strategies(*numbers)}


BENCHMARKS: dict[str, dict[str, Benchmark]] = {
    "mailer": {
        "mailer": mailer.mailer,
        "round trips": mailer.round_trips,
        "busy round trips": mailer.busy_round_trips,
    },
    "web": {"load generator": web.load_generator, "strategy 1": web.foreground},
    "burst": {"strategy 2": burst.parallel},
    "accepting": of_each(accepting.accepting, 3, 4, 5, 6),
    "replicas": of_each(acknowledging.acknowledging, 5, 6),
    "cost": of_each(cost.cost, 1, 2, 3, 4, 5, 6),
    "delivering": {**of_each(delivering.delivering, 3, 4, 5, 6), **of_each(delivering.one_worker, 5, 6)},
    "parts": {**of_each(parts.accepting_parts, 5, 6), **of_each(parts.delivering_parts, 3, 5, 6)},
    "idle": of_each(idle.from_idle, 1, 2, 3, 4, 5, 6),
    "engines": {**engines.benchmarks()},
    "queue": {"queue": queue.queue},
    "log": {"log": log.log},
    "batcher": {"batcher": batcher.batcher},
    "scale": {
        "many queues": scale.many_queues,
        "many slots": scale.many_slots,
        "long queue": queue.long_queue,
        "long log": log.long_log,
    },
}


def measure(benchmarks: dict[str, Benchmark], found: list[Row | Breakdown], console: Console) -> None:
    """Run the benchmarks one after the other, and add their results. Raises ChildFailed; the results so far are kept.

    In every case all processes are ended and all files removed.
    """
    columns = (SpinnerColumn(), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
    text = TextColumn("{task.description}: {task.fields[step]}")
    with (
        TemporaryDirectory(prefix="six-ways-bench-") as folder,
        Progress(*columns, text, console=console, transient=True) as progress,
    ):
        task = progress.add_task("", total=len(benchmarks), step="")
        for number, (name, benchmark) in enumerate(benchmarks.items()):
            progress.update(task, description=name, step="starting")
            own = Path(folder, str(number))  # so that no benchmark sees what another has left in Redis
            own.mkdir()
            found.extend(benchmark(Lab(own, lambda step: progress.update(task, step=step))))
            progress.advance(task)


def table(rows: Sequence[Row]) -> Table:
    """Medians, with the lowest and the highest round below them."""
    grid = Table(
        "what", "measured", "reference", "ratio", "target", "met", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    for row in rows:
        grid.add_row(
            f"[bold]{row.name}[/]\n[dim]{row.unit}[/]",
            shown(row.rounds.measured),
            f"{shown(row.rounds.reference)}\n[dim]{row.reference}[/]",
            shown(row.rounds.ratio),
            row.target,
            "[green]yes[/]" if row.met else "[bold red]NO[/]",
        )
        grid.add_row()
    return grid


def shown(spread: Spread) -> str:
    middle, low, high = map(format_number, (spread.median, spread.low, spread.high))
    return middle if low == high else f"{middle}\n[dim]{low}..{high}[/]"


def chosen(names: Sequence[str]) -> dict[str, Benchmark]:
    groups = [group for name, group in BENCHMARKS.items() if name in names or not names]
    return {name: benchmark for group in groups for name, benchmark in group.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", help=f"{', '.join(BENCHMARKS)}; default: BENCH_ONLY, else all")
    only = parser.parse_args().only or os.environ.get("BENCH_ONLY", "").split()
    if unknown := set(only) - set(BENCHMARKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(BENCHMARKS)}")
    refuse_env_overrides(parser)
    end_on_signals()
    console = Console()
    machine = describe_machine() | {"warning": busy()}
    if machine["warning"]:
        console.print(f"[yellow]{machine['warning']}[/]")
    found: list[Row | Breakdown] = []
    failure = ""
    try:
        measure(chosen(only), found, console)
    except ChildFailed as reason:
        failure = str(reason)
    skipped = engines.skipped() if not only or "engines" in only else []
    for line in skipped:
        console.print(f"[yellow]{line}[/]")
    report(console, found, machine, failure, whole=not only and not skipped)
    sys.exit(failure or (0 if all(row.met for row in found if isinstance(row, Row)) else 1))


def report(
    console: Console, found: Sequence[Row | Breakdown], machine: dict[str, Any], failure: str, *, whole: bool
) -> None:
    """Show and save what has been measured. After a failure it is saved as a partial run, with the reason."""
    if not found:
        return
    rows = [row for row in found if isinstance(row, Row)]
    breakdowns = [one for one in found if isinstance(one, Breakdown)]
    if rows:
        console.print(table(rows))
    for breakdown in breakdowns:
        console.print(parts.table(breakdown))
    for row in rows:
        for note in row.notes:
            console.print(f"[bold]{row.name}[/]: {note}", highlight=False)
    console.print("[dim]{cpu}, {cores} cores, {kernel}, {python}, load {load_average}[/]".format(**machine))
    facts = {"machine": machine, "failure": failure or None, "rows": [row.to_dict() for row in rows]}
    facts["parts"] = [breakdown.to_dict() for breakdown in breakdowns]
    if failure:
        console.print("not everything was measured", style="bold red")
    console.print(f"[dim]{files_written(write_results('bench', facts, whole=whole and not failure))}[/]")
