"""What the lab's commands share: how they end, how they read their settings, where they write."""

import argparse
import json
import math
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from common.processes.process import LIFELINE
from lab.harness.processes import ROOT, env_overrides

RESULTS = Path(os.environ.get("RESULTS_DIR") or ROOT / "results")
"""The folder for results. Tests set RESULTS_DIR to a folder outside the repository."""
PARTIAL = RESULTS / "partial"
"""The folder for the results of partial runs. Git ignores it, and no README shows them."""


def end_on_signals() -> None:
    """End in order on SIGINT, SIGTERM and SIGHUP, and when the parent has died, if a lifeline leads to it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    if LIFELINE in os.environ:
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if not os.read(sys.stdin.fileno(), 1):
        os.kill(os.getpid(), signal.SIGTERM)


def _end(number: int, frame: FrameType | None) -> None:
    """Exit through every `finally`. Further signals are ignored, because a second Ctrl-C must not interrupt that."""
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def refuse_env_overrides(parser: argparse.ArgumentParser) -> None:
    if names := env_overrides():
        parser.error(f".env sets {', '.join(names)}, which would change the results; remove that for this run")


def number_from(
    parser: argparse.ArgumentParser, name: str, default: float, minimum: float, maximum: float = math.inf
) -> float:
    """A number from the environment, as in `make compare N=500`. Exits with status 2 if it is invalid."""
    text = os.environ.get(name) or str(default)
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not minimum <= number <= maximum or number == math.inf:
        limit = "" if maximum == math.inf else f" and at most {maximum:g}"
        parser.error(f"{name}: {text} is not a number of at least {minimum:g}{limit}")
    return number


def names_from(parser: argparse.ArgumentParser, name: str, available: list[str]) -> list[str]:
    """A selection from the environment, as in `make compare STRATEGIES="1 5"`; by default all that are available."""
    chosen = os.environ.get(name, "").replace(",", " ").split()
    if unknown := [word for word in chosen if word not in available]:
        parser.error(f"{name}: unknown: {', '.join(unknown)}; choose from {', '.join(available)}")
    return [word for word in available if word in chosen] if chosen else available


def write_results(name: str, facts: dict[str, Any], *, whole: bool, **texts: str) -> list[Path]:
    """Write NAME.json, and one more file for each of `texts`, such as NAME.md. A partial run overwrites no result."""
    folder = RESULTS if whole else PARTIAL
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for ending, text in {"json": json.dumps(facts, indent=2) + "\n", **texts}.items():
        written.append(folder / f"{name}.{ending}")
        written[-1].write_text(text)
    return written


def files_written(paths: list[Path]) -> str:
    return "written: " + ", ".join(str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path) for path in paths)
