"""Faults inside a program of the learner: a clock that a check moves forward, and a disk that is slow for one file.

The launcher calls `prepare` before it runs the program. Two environment variables choose the faults:

MOVABLE_CLOCK   a file. On SIGUSR2, the program's clocks move forward to the number of seconds in it, so that a check
                of a long wait takes no time
SLOW_FILE       a part of a path. Before such a file is renamed, linked or removed, SLOW_SECONDS pass
"""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import uvloop

MOVABLE_CLOCK, SLOW_FILE = "MOVABLE_CLOCK", "SLOW_FILE"
CLOCKS = ("monotonic", "perf_counter", "time")
SLOW_SECONDS = 0.5


def prepare() -> None:
    if path := os.environ.get(MOVABLE_CLOCK):
        _make_clock_movable(Path(path))
    if part := os.environ.get(SLOW_FILE):
        _slow_down(part)


def _make_clock_movable(path: Path) -> None:
    ahead = 0.0
    for name in CLOCKS:
        real = getattr(time, name)
        setattr(time, name, lambda real=real: real() + ahead)
    uvloop.run, uvloop.new_event_loop = asyncio.run, asyncio.new_event_loop  # type: ignore[assignment]  # uvloop's clock is in C

    def move(*_: object) -> None:
        nonlocal ahead
        ahead = float(path.read_text())
        asyncio.get_running_loop().call_soon_threadsafe(lambda: None)  # so that it looks at its timers

    signal.signal(signal.SIGUSR2, move)


def _slow_down(part: str) -> None:
    def wait(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("os.rename", "os.remove", "os.link") and any(part in str(argument) for argument in arguments):
            time.sleep(SLOW_SECONDS)

    sys.addaudithook(wait)
