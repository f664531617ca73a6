"""A program of the learner that a check has started, and what a check says when something is wrong."""

import asyncio
import re
import time
from dataclasses import dataclass
from pathlib import Path

from workshop.bench import CONT, KILL, MOVE_CLOCK, STOP, TERM, Bench

LIMIT = 20.0  # seconds that a condition may take, even on a slow machine
POLL_SECONDS = 0.02
LAST_LINES = 6


class Failed(Exception):
    """The check has found something wrong. `look` says where the learner should look."""

    def __init__(self, expected: str, happened: str, look: str) -> None:
        super().__init__(f"expected: {expected}\nhappened: {happened}\nlook at:  {look}")
        self.expected = expected
        self.happened = happened
        self.look = look


def clock_of(output: Path) -> Path:
    """The file of the program's movable clock."""
    return output.with_suffix(".clock")


@dataclass
class Program:
    """A program of the learner."""

    name: str
    pid: int
    output: Path
    bench: Bench
    moved_seconds: float = 0.0

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self.bench.status(self.pid)

    def text(self) -> str:
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def tail(self) -> str:
        lines = self.text().strip().splitlines()[-LAST_LINES:]
        return "\n".join(["its last lines:", *(f"    {line}" for line in lines)]) if lines else "it printed nothing"

    async def wait_for(self, pattern: str, limit: float = LIMIT) -> str:
        """Wait until its output matches. Returns the first group, or the match. Raises Failed."""
        deadline = time.monotonic() + limit
        while not (found := re.search(pattern, self.text(), re.MULTILINE)):
            if self.status is not None and not re.search(pattern, self.text(), re.MULTILINE):
                raise Failed(f"{self.name} runs", f"it ended with status {self.status}; {self.tail()}", self.name)
            if time.monotonic() > deadline:
                raise Failed(
                    f"{self.name} prints a line like {pattern}", f"not within {limit:g} s; {self.tail()}", self.name
                )
            await asyncio.sleep(POLL_SECONDS)
        return found[1] if found.re.groups else found[0]

    async def wait(self, limit: float = LIMIT) -> int:
        """Wait for its end. Returns the exit status. Raises Failed after `limit` seconds."""
        deadline = time.monotonic() + limit
        while (status := self.status) is None:
            if time.monotonic() > deadline:
                raise Failed(f"{self.name} ends within {limit:g} s", f"it still runs; {self.tail()}", self.name)
            await asyncio.sleep(POLL_SECONDS)
        return status

    async def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self.bench.signal(self.pid, KILL)
        await self.wait()

    def terminate(self) -> None:
        self.bench.signal(self.pid, TERM)

    def suspend(self) -> None:
        self.bench.signal(self.pid, STOP)

    def resume(self) -> None:
        self.bench.signal(self.pid, CONT)

    def move_clock(self, seconds: float) -> None:
        """Move its clocks forward. It must have been started with MOVABLE_CLOCK=1."""
        self.moved_seconds += seconds
        clock_of(self.output).write_text(str(self.moved_seconds))
        self.bench.signal(self.pid, MOVE_CLOCK)
