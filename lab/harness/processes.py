"""Child processes: started in a clean environment, on loopback, and always ended and reaped."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TypeVar

import psutil
from dotenv import dotenv_values

from common.processes.process import LIFELINE
from common.settings import Settings, setting_names
from lab.harness.figures import Facts
from lab.harness.machine import alive, descendants

ROOT = Path(__file__).parents[2]
START_SECONDS = 60.0  # for a busy machine; an idle one needs two
END_SECONDS = 15.0  # longer than a server waits for its open requests; after that it is killed
MEASURE_SECONDS = 30.0  # more than twice as long as any measurement should take
ORPHAN_SECONDS = 3.0  # for a process to notice that its parent was killed
POLL_SECONDS = 0.01
LONGEST_POLL_SECONDS = 0.1

T = TypeVar("T")


class ChildFailed(Exception):
    """A child process failed. The message has the last line of its output."""


class Child:
    """A child process. Its standard output and standard error go to `file`.

    A file, so that no process has to read it during a measurement. With `lifeline`, the kernel closes the child's
    standard input when this process ends, even if it is killed.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        environment: dict[str, str],
        file: Path,
        folder: Path = ROOT,
        *,
        lifeline: bool = True,
    ) -> None:
        self.name = name
        self.file = file
        with open(file, "wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.PIPE if lifeline else subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # so that Ctrl-C reaches only this process
            )

    def text(self) -> str:
        return self.file.read_text(errors="replace")

    @property
    def lines(self) -> list[str]:
        *lines, last = self._whole_lines().split("\n")
        return [*lines, last] if last else lines

    def _whole_lines(self) -> str:
        """Its output so far, without a line that it is writing."""
        ended = self.process.poll() is not None  # before the output is read; then the last line may have no end
        text = self.text()
        return text if ended else text[: text.rfind("\n") + 1]

    def descendants(self) -> list[psutil.Process]:
        return descendants(self.process.pid)

    def find(self, pattern: str, limit: float = START_SECONDS) -> re.Match[str]:
        """Wait until a line of the output matches. Raises ChildFailed after `limit` seconds, or when it has ended."""
        deadline, pause = time.monotonic() + limit, POLL_SECONDS
        while True:
            ended = self.process.poll() is not None  # before the output is read, so that the last lines are seen
            if found := re.search(pattern, self._whole_lines(), re.MULTILINE):
                return found
            if ended or time.monotonic() > deadline:
                raise self.failure()
            time.sleep(pause)
            pause = min(1.2 * pause, LONGEST_POLL_SECONDS)

    def tail(self, size: int) -> str:
        """The last `size` bytes; the first line may be incomplete."""
        with open(self.file, "rb") as file:
            file.seek(max(0, self.file.stat().st_size - size))
            return file.read().decode(errors="replace")

    def wait_for(self, pattern: str) -> str:
        """Wait until a line of the output matches. Returns the pattern's first group. Raises ChildFailed."""
        return self.find(pattern)[1]

    def result(self, limit: float, while_running: Callable[[], object] = lambda: None) -> Facts:
        """Wait at most `limit` seconds for its end. Returns the last JSON object it has printed. Raises ChildFailed."""
        deadline = time.monotonic() + limit
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                raise ChildFailed(f"{self.name} did not end within {limit:g} s")
            while_running()
            time.sleep(POLL_SECONDS)
        if self.process.returncode:
            raise self.failure()
        try:
            facts: Facts = json.loads(next(line for line in reversed(self.text().splitlines()) if line.startswith("{")))
        except (StopIteration, json.JSONDecodeError):
            raise self.failure() from None
        return facts

    def failure(self) -> ChildFailed:
        last = self.text().strip().splitlines()[-1:] or ["no output"]
        return ChildFailed(f"{self.name} (exit status {self.process.poll()}): {last[0]}")


class Lab:
    """Starts the child processes of one run. `folder` is for their files, and is deleted after the run.

    `say` gets the progress of a measurement, as text.
    """

    def __init__(self, folder: Path, say: Callable[[str], object] = lambda _: None) -> None:
        self.folder = folder
        self.say = say
        self._numbers = count(1)

    @contextmanager
    def child(
        self, command: list[str], name: str, alone: bool = False, seconds: float = END_SECONDS, /, **settings: object
    ) -> Iterator[Child]:
        """A process that runs as long as the block. `settings` are added to the default settings.

        At the end of the block, SIGTERM is sent to its process group; with `alone` only to the process itself, which
        passes it on. It is killed if it has not ended after `seconds`.
        """
        file = self.folder / f"{next(self._numbers)}-{name}.log"
        child = Child(name, command, default_environment(**settings), file)
        try:
            yield child
        finally:
            end(child.process, seconds, alone=alone)

    def measure(
        self, module: str, *options: object, while_running: Callable[[], object] = lambda: None, **settings: object
    ) -> Facts:
        """Run a module that prints its measurement as JSON. Raises ChildFailed."""
        with self.child(python(module, *options), module, **settings) as child:
            return child.result(MEASURE_SECONDS, while_running)


def wait_until(condition: Callable[[], T | None], what: str, limit: float = START_SECONDS) -> T:
    """Wait until the condition is true, and return its value. Raises ChildFailed after `limit` seconds."""
    deadline = time.monotonic() + limit
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise ChildFailed(f"not within {limit:g} s: {what}")
        time.sleep(POLL_SECONDS)
    return result


def wait_until_open(child: Child, port: int) -> None:
    """Wait until the child listens on its port. Raises ChildFailed."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        if child.process.poll() is not None or time.monotonic() > deadline:
            raise child.failure()
        time.sleep(POLL_SECONDS)


def python(module: str, *options: object) -> list[str]:
    return [sys.executable, "-m", module, *map(str, options)]


def default_environment(**settings: object) -> dict[str, str]:
    """This process's environment with all settings of the project at their defaults, except those given.

    The defaults are set explicitly, to override the reader's `.env`, which may name a real mail server.
    """
    fields = Settings.model_fields
    names = setting_names()
    not_ours = {*names.values(), "MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES"}
    environment = {name: value for name, value in os.environ.items() if name.upper() not in not_ours}
    defaults = {names[name]: str(field.default) for name, field in fields.items() if field.default is not None}
    given = {name: str(value) for name, value in settings.items()}
    # MAKELEVEL tells common/processes/run.py to check that its parent is alive.
    return environment | defaults | given | {LIFELINE: "1", "MAKELEVEL": "1", "PYTHONUNBUFFERED": "1"}


def env_overrides() -> list[str]:
    """Settings in the reader's `.env` that no default can override, because by default they are not set."""
    names = setting_names()
    free = {names[name] for name, field in Settings.model_fields.items() if field.default is None} - {"SMTP_URL"}
    return sorted(name for name, value in dotenv_values(ROOT / ".env").items() if value and name.upper() in free)


def end(
    process: subprocess.Popen[bytes],
    seconds: float = END_SECONDS,
    *,
    alone: bool = False,
    number: signal.Signals = signal.SIGTERM,
    orphan_seconds: float = ORPHAN_SECONDS,
) -> list[psutil.Process]:
    """Send a signal, and SIGKILL if the child has not ended after `seconds`. It is reaped even if this is interrupted.

    Returns when its descendants have ended too, including services that it has started in sessions of their own; they
    have `orphan_seconds` after the child's end. Returns the processes that had to be killed.
    """
    running = process.poll() is None
    family = descendants(process.pid) if running else []
    killed: list[psutil.Process] = []
    try:
        if running:
            (os.kill if alone else os.killpg)(process.pid, number)  # not reaped, so the pid is still ours
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    finally:
        if process.stdin is not None:
            process.stdin.close()
        if process.poll() is None:
            killed.append(psutil.Process(process.pid))
            process.kill()
            process.wait()
        for orphan in still_alive(family, orphan_seconds):
            killed.append(orphan)
            with suppress(psutil.NoSuchProcess):
                orphan.kill()
        still_alive(family, ORPHAN_SECONDS)
    return killed


def still_alive(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait at most `seconds` until all of them have ended. Returns those that have not."""
    deadline = time.monotonic() + seconds
    while (left := [process for process in processes if alive(process)]) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return left
