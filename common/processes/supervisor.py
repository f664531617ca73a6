"""Runs a strategy's roles as child processes: prefixes their output, restarts them when they die, and stops them."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from common.processes.pid_files import PidFile
from common.processes.process import LIFELINE
from common.settings import USAGE_ERROR

RESTART_SECONDS = 1.0
PREFIXED = re.compile(rb"\[[a-z ]+ @ \d+\] ")  # a line that a role prints for a child of its own


class Stop:
    """The user's request to stop. The first one stops the children with SIGTERM, a second one kills them."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.kill_requested = asyncio.Event()

    def request(self) -> None:
        if self.requested.is_set():
            self.kill_requested.set()
        self.requested.set()

    async def sleep(self, seconds: float) -> None:
        """Sleep, but return early when a stop is requested."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.requested.wait(), seconds)


class Child:
    """A process of one role, which is started again when it ends (not with `once`)."""

    def __init__(
        self,
        package: str,
        role: str,
        environment: dict[str, str],
        stop: Stop,
        pids: PidFile,
        *,
        once: bool = False,
    ) -> None:
        self.role = role
        self._pids = pids
        self._command = [sys.executable, "-m", package, role]
        self._environment = os.environ | environment | {LIFELINE: "1", "PYTHONUNBUFFERED": "1"}
        self._stop = stop
        self._once = once
        self._process: asyncio.subprocess.Process | None = None

    async def keep_running(self) -> int:
        """Run the process until a stop is requested. Returns 0, or the exit status if it must not be started again."""
        while not self._stop.requested.is_set():
            self._process = process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,  # the lifeline: it closes when this process ends, and the child stops
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=self._environment,
                process_group=0,  # so that Ctrl-C reaches only this process
            )
            self._pids.add(process.pid)
            if self._stop.requested.is_set():  # requested during the start, when `end` had no process to stop
                process.terminate()
            await self._relay_output(process)
            status = await process.wait()
            self._pids.remove(process.pid)
            if self._stop.requested.is_set():
                return 0
            if status == USAGE_ERROR or self._once:
                return status
            say(f"{self.role} @ {process.pid} {how_it_ended(status)}; starting it again in {RESTART_SECONDS:g} s")
            await self._stop.sleep(RESTART_SECONDS)
        return 0

    async def _relay_output(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        rest = b""
        while chunk := await process.stdout.read(1 << 16):
            *lines, rest = (rest + chunk).split(b"\n")
            self._show(process.pid, lines)
        self._show(process.pid, [rest] if rest else [])

    def _show(self, pid: int, lines: list[bytes]) -> None:
        prefix = f"[{self.role} @ {pid}] "
        text = "".join([f"{'' if PREFIXED.match(line) else prefix}{line.decode(errors='replace')}\n" for line in lines])
        if not show(text):
            self._stop.request()

    async def end(self, seconds: float) -> None:
        """Send SIGTERM, and SIGKILL if the child has not ended after `seconds` or the user asks a second time."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await _first(process.wait(), self._stop.kill_requested.wait())
        if process.returncode is None:
            say(f"{self.role} @ {process.pid} does not stop; killing it")
            process.kill()
            await process.wait()


async def _first(*coroutines: Coroutine[Any, Any, object]) -> None:
    """Wait until the first of the coroutines ends, and cancel the others."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def how_it_ended(status: int) -> str:
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"


def show(text: str) -> bool:
    """Write to standard output. Returns False if it is closed (`| head`) or full; after that, nothing is written."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return False
    return True


def say(line: str) -> None:
    show(f"[runner @ {os.getpid()}] {line}\n")
