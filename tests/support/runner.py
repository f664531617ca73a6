"""`make run-N` as a reader runs it: in a terminal, on free ports, or until it ends by itself."""

import os
import pty
import re
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.support.programs import LIMIT, ROOT, SETTINGS, Program

FREE_PORTS = {"PORT": "0", "INBOX_SMTP_PORT": "0", "INBOX_PORT": "0", "VALKEY_PORT": "0"}


class Terminal:
    """A program in its own terminal, as a reader runs it."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        clean = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            os.execvpe(command[0], command, clean | environment)
        self.output = ""

    def type(self, keys: bytes) -> None:
        os.write(self.terminal, keys)

    def read_until(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + LIMIT
        while not (match := re.search(pattern, self.output)):
            assert time.monotonic() < deadline, f"no {pattern!r} in:\n{self.output}"
            self._read()
        return match

    def exit_status(self, limit: float = LIMIT, otherwise: bytes = b"") -> int:
        """Wait `limit` seconds for the end. With `otherwise`, type that when it has not come, and wait again."""
        deadline = time.monotonic() + limit
        while (ended := os.waitpid(self.pid, os.WNOHANG))[0] == 0:
            if otherwise and time.monotonic() > deadline:
                self.type(otherwise)
                deadline, otherwise = time.monotonic() + LIMIT, b""
            assert time.monotonic() < deadline, f"still running:\n{self.output}"
            self._read()
        return os.waitstatus_to_exitcode(ended[1])

    def _read(self) -> None:
        if select.select([self.terminal], [], [], 0.01)[0]:
            with suppress(OSError):
                self.output += os.read(self.terminal, 65536).decode(errors="replace")


@contextmanager
def in_a_terminal(command: list[str], environment: dict[str, str]) -> Iterator[Terminal]:
    terminal = Terminal(command, environment)
    try:
        yield terminal
    finally:
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(terminal.pid).children(recursive=True):
                process.kill()
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(terminal.pid, signal.SIGKILL)
            os.waitpid(terminal.pid, 0)
        os.close(terminal.terminal)


def run_to_its_end(
    command: list[str], tmp_path: Path, limit: float = LIMIT, **environment: str
) -> tuple[int, list[str]]:
    program = Program(command, FREE_PORTS | {"DATA_DIR": str(tmp_path)} | environment)
    try:
        program.process.wait(limit)
    finally:
        status = program.stop()
    return status, [line for line in program.lines if not line.startswith("make: ")]
