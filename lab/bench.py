"""`make bench`: how fast the parts are, each figure beside a reference that was measured in the same run.

Rounds alternate between the two, and the ratio is taken round by round: on a shared machine the ratio is what stays.
Prints a table and writes results/bench.json. The exit status is 1 when a target is missed.

`make bench BENCH_ONLY="mailer burst"` measures only some and writes no file; or name them as arguments.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from lab import bench_burst, bench_mailer, bench_web
from lab.children import ROOT, ChildFailed, Lab
from lab.figures import Row, Spread
from lab.machine import busy, stamp

RESULTS = ROOT / "results" / "bench.json"
BENCHMARKS: dict[str, Sequence[Callable[[Lab], Row]]] = {
    "mailer": (bench_mailer.mailer, bench_mailer.round_trips),
    "web": (bench_web.load_generator, bench_web.foreground),
    "burst": (bench_burst.parallel,),
}


def measure(benchmarks: Sequence[Callable[[Lab], Row]], console: Console) -> list[Row]:
    """Run them one after another. Raises ChildFailed; ends all processes and removes all files however it ends."""
    columns = (SpinnerColumn(), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
    text = TextColumn("{task.description}: {task.fields[step]}")
    rows = []
    with (
        TemporaryDirectory(prefix="six-ways-bench-") as folder,
        Progress(*columns, text, console=console, transient=True) as progress,
    ):
        task = progress.add_task("", total=len(benchmarks), step="")
        lab = Lab(Path(folder), lambda step: progress.update(task, step=step))
        for benchmark in benchmarks:
            progress.update(task, description=benchmark.__name__.replace("_", " "))
            rows.append(benchmark(lab))
            progress.advance(task)
    return rows


def table(rows: Sequence[Row]) -> Table:
    """Medians, with the lowest and the highest round in brackets; notes under each row."""
    grid = Table(
        "what", "measured", "reference", "ratio", "target", "met", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    for row in rows:
        grid.add_row(
            f"[bold]{row.name}[/]\n[dim]{row.unit}[/]",
            shown(row.rounds.measured),
            f"{shown(row.rounds.reference)}\n[dim]{row.against}[/]",
            shown(row.rounds.ratio),
            row.target,
            "[green]yes[/]" if row.met else "[bold red]NO[/]",
        )
        grid.add_row()
    return grid


def shown(spread: Spread) -> str:
    middle, low, high = (f"{n:,.0f}" if n >= 100 else f"{n:.2f}" for n in (spread.median, spread.low, spread.high))
    return middle if low == high else f"{middle}\n[dim]{low}..{high}[/]"


def write_results(machine: dict[str, Any], rows: Sequence[Row]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": machine, "rows": [row.to_dict() for row in rows]}, indent=2) + "\n")


def stop(number: int, frame: FrameType | None) -> None:
    """Leave by the same way as ever, through every `finally`; a second Ctrl-C must not cut that short."""
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def chosen(names: Sequence[str]) -> list[Callable[[Lab], Row]]:
    return [benchmark for name, group in BENCHMARKS.items() if name in names or not names for benchmark in group]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", help=f"{', '.join(BENCHMARKS)}; default: BENCH_ONLY, else all")
    only = parser.parse_args().only or os.environ.get("BENCH_ONLY", "").split()
    if unknown := set(only) - set(BENCHMARKS):
        parser.error(f"no such group: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    console = Console()
    machine = stamp()
    if warning := busy():
        console.print(f"[yellow]{warning}[/]")
    try:
        rows = measure(chosen(only), console)
    except ChildFailed as failure:
        sys.exit(str(failure))
    console.print(table(rows))
    for row in rows:
        for note in row.notes:
            console.print(f"[bold]{row.name}[/]: {note}", highlight=False)
    console.print("[dim]{cpu}, {cores} cores, {kernel}, {python}, load {load_average}[/]".format(**machine))
    if not only:
        write_results(machine, rows)
        console.print(f"[dim]written to {RESULTS.relative_to(ROOT)}[/]")
    sys.exit(0 if all(row.met for row in rows) else 1)


if __name__ == "__main__":
    main()
