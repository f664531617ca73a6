"""A strategy's processes as children of one terminal's runner: prefixed, watched, started again, stopped in order."""

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
PREFIXED = re.compile(rb"\[[a-z ]+ @ \d+\] ")  # a role that speaks for children of its own


class Stop:
    """Somebody's wish that all of this ends. The first one asks the children, a second one kills them."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.impatient = asyncio.Event()

    def request(self) -> None:
        if self.requested.is_set():
            self.impatient.set()
        self.requested.set()

    async def sleep(self, seconds: float) -> None:
        """Sleep, but not past the wish to stop."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.requested.wait(), seconds)


class Child:
    """One role as a process that is kept running; with `once`, until it ends."""

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
        """Return 0 at the end of all, or the exit status of one that must not be started again."""
        while not self._stop.requested.is_set():
            self._process = process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,  # the lifeline: the child ends when this process does
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=self._environment,
                process_group=0,  # Ctrl-C goes to the parent alone
            )
            self._pids.add(process.pid)
            if self._stop.requested.is_set():  # while it was being started, when nobody could stop it yet
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
            self._say(process.pid, lines)
        self._say(process.pid, [rest] if rest else [])

    def _say(self, pid: int, lines: list[bytes]) -> None:
        prefix = f"[{self.role} @ {pid}] "
        text = "".join([f"{'' if PREFIXED.match(line) else prefix}{line.decode(errors='replace')}\n" for line in lines])
        if not show(text):
            self._stop.request()

    async def end(self, seconds: float) -> None:
        """SIGTERM, and SIGKILL for a child that does not end within so many seconds."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await _first(process.wait(), self._stop.impatient.wait())
        if process.returncode is None:
            say(f"{self.role} @ {process.pid} does not end; killing it")
            process.kill()
            await process.wait()


async def _first(*coroutines: Coroutine[Any, Any, object]) -> None:
    """Wait for whichever ends first; the others are cancelled."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def how_it_ended(status: int) -> str:
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"


def show(text: str) -> bool:
    """Write to standard output. False when that is closed (`| head`) or full: from then on nothing is written."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return False
    return True


def say(line: str) -> None:
    show(f"[runner @ {os.getpid()}] {line}\n")
