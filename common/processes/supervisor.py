"""Runs a strategy's roles as child processes: prefixes their output, restarts them when they die, and stops them."""

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, cast

from common.processes.pid_files import PidFile
from common.processes.process import LIFELINE
from common.settings import USAGE_ERROR

RESTART_SECONDS = 1.0
RELAY_SECONDS = 2.0  # for the last lines of a process that has ended
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
        self._process: _Process | None = None

    async def keep_running(self) -> int:
        """Run the process until a stop is requested. Returns 0, or the exit status if it must not be started again."""
        while not self._stop.requested.is_set():
            lifeline, theirs = socket.socketpair()
            with lifeline:
                with theirs:
                    self._process = process = await self._start(theirs)
                status = await self._wait(process)
                has_started = _has_data(lifeline)
            if self._stop.requested.is_set():
                return 0
            # The code of a job may end its process with any exit status. So only a role that has not started yet can
            # report by its exit status that a setting is wrong.
            if (status == USAGE_ERROR and not has_started) or self._once:
                return status
            say(f"{self.role} @ {process.pid} {how_it_ended(status)}; starting it again in {RESTART_SECONDS:g} s")
            await self._stop.sleep(RESTART_SECONDS)
        return 0

    async def _start(self, lifeline: socket.socket) -> "_Process":
        _, process = await asyncio.get_running_loop().subprocess_exec(
            lambda: _Process(self._show),
            *self._command,
            stdin=lifeline.fileno(),  # it closes when this process ends, and then the child stops
            stderr=asyncio.subprocess.STDOUT,
            env=self._environment,
            process_group=0,  # so that Ctrl-C reaches only this process
        )
        return process

    async def _wait(self, process: "_Process") -> int:
        """Wait until the process ends. Returns its exit status."""
        self._pids.add(process.pid)
        if self._stop.requested.is_set():  # requested during the start, when `end` had no process to stop
            process.transport.terminate()
        status = await process.ended()
        self._pids.remove(process.pid)
        await process.relayed()
        return status

    def _show(self, pid: int, lines: list[bytes]) -> None:
        prefix = f"[{self.role} @ {pid}] "
        text = "".join([f"{'' if PREFIXED.match(line) else prefix}{line.decode(errors='replace')}\n" for line in lines])
        if not show(text):
            self._stop.request()

    async def end(self, seconds: float) -> None:
        """Send SIGTERM, and SIGKILL if the child has not ended after `seconds` or the user asks a second time."""
        process = self._process
        if process is None or process.has_ended():
            return
        process.transport.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await _first(process.ended(), self._stop.kill_requested.wait())
        if not process.has_ended():
            say(f"{self.role} @ {process.pid} does not stop; killing it")
            process.transport.kill()
            await process.ended()


class _Process(asyncio.SubprocessProtocol):
    """A running process. `show` is called with its pid and the lines of its output."""

    transport: asyncio.SubprocessTransport
    pid: int

    def __init__(self, show: Callable[[int, list[bytes]], None]) -> None:
        self._show = show
        self._rest = b""  # the last line of the output, which has not ended yet
        self._ended = asyncio.Event()
        self._closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.SubprocessTransport, transport)
        self.pid = self.transport.get_pid() or 0

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._show(self.pid, lines)

    def process_exited(self) -> None:
        self._ended.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()

    def has_ended(self) -> bool:
        return self._ended.is_set()

    async def ended(self) -> int:
        """Wait until the process ends. Returns its exit status, which is negative for a signal."""
        await self._ended.wait()
        return self.transport.get_returncode() or 0

    async def relayed(self) -> None:
        """Wait for the last lines, but not for long: a process that a job has left behind may keep the output open."""
        await _first(self._closed.wait(), asyncio.sleep(RELAY_SECONDS))
        self.transport.close()
        if self._rest:
            self._show(self.pid, [self._rest])


def _has_data(lifeline: socket.socket) -> bool:
    """Whether the child has written to it: see `stop_requested`."""
    try:
        return bool(lifeline.recv(1, socket.MSG_DONTWAIT))
    except OSError:  # no data, but a process that a job has left behind keeps the other end open
        return False


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
