"""What the lab's commands have in common: how they end, what they refuse, where they write."""

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
from lab.harness.processes import ROOT, in_the_way

RESULTS = Path(os.environ.get("RESULTS_DIR") or ROOT / "results")
"""Where what was measured is saved. With RESULTS_DIR elsewhere, as in tests: the repository stays as it is."""
PARTIAL = RESULTS / "partial"
"""For runs of a part only: not in the repository, and no README shows them."""


def end_on_signals() -> None:
    """End in order on Ctrl-C and the like, and with the parent if there is a lifeline to it, however that dies."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    if LIFELINE in os.environ:
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if not os.read(sys.stdin.fileno(), 1):
        os.kill(os.getpid(), signal.SIGTERM)


def _end(number: int, frame: FrameType | None) -> None:
    """Leave by the same way as ever, through every `finally`; a second Ctrl-C must not cut that short."""
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def refuse_settings_in_the_way(parser: argparse.ArgumentParser) -> None:
    if names := in_the_way():
        parser.error(f".env sets {', '.join(names)}, which would change what is measured; take that out meanwhile")


def number_from(
    parser: argparse.ArgumentParser, name: str, default: float, least: float, most: float = math.inf
) -> float:
    """A number in the environment, as in `make compare N=500`; one that is none ends the program with exit status 2."""
    text = os.environ.get(name) or str(default)
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not least <= number <= most or number == math.inf:
        limit = "" if most == math.inf else f" and at most {most:g}"
        parser.error(f"{name}: {text} is not a number of at least {least:g}{limit}")
    return number


def names_from(parser: argparse.ArgumentParser, name: str, there: list[str]) -> list[str]:
    """Some of what is there, as in `make compare STRATEGIES="1 5"`; all when nothing is said."""
    chosen = os.environ.get(name, "").replace(",", " ").split()
    if unknown := [word for word in chosen if word not in there]:
        parser.error(f"{name}: there is no {', '.join(unknown)}; there are {', '.join(there)}")
    return [word for word in there if word in chosen] if chosen else there


def write_results(name: str, facts: dict[str, Any], *, whole: bool, **texts: str) -> list[Path]:
    """Write NAME.json, and NAME.md or the like for each text; of a part of a run, where it overwrites nothing."""
    folder = RESULTS if whole else PARTIAL
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for ending, text in {"json": json.dumps(facts, indent=2) + "\n", **texts}.items():
        written.append(folder / f"{name}.{ending}")
        written[-1].write_text(text)
    return written


def said(paths: list[Path]) -> str:
    return "written: " + ", ".join(str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path) for path in paths)
