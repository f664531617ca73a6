"""What the checks of one command share: the launcher of the learner's programs, and a Valkey."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from common.services.service import Service
from common.settings import Settings
from lab.harness.processes import ROOT, default_environment

START_SECONDS = 60.0  # for a busy machine
DATABASES = 16  # of a Redis, by default


class Bench:
    """Starts what a check asks for. Leaving the block ends everything."""

    def __init__(self) -> None:
        self.folder = Path()
        self._stack = ExitStack()
        self._launcher: subprocess.Popen[bytes] | None = None
        self._valkey_port: int | None = None
        self._databases = list(range(DATABASES))
        self._started: list[int] = []
        self._ended: dict[int, int] = {}
        self._news = threading.Condition()
        self._asking = threading.Lock()
        self._outputs = count(1)

    def __enter__(self) -> Self:
        self.folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="workshop-")))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def new_output(self) -> Path:
        """A new file for what a program prints."""
        return self.folder / f"{next(self._outputs)}.log"

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a database that no other check uses. It may block, so call it in a thread."""
        with self._asking:
            if self._valkey_port is None:
                settings = Settings.model_construct(data_dir=self.folder / "valkey", valkey_port=0)  # no environment
                service = self._stack.enter_context(Service(settings, "valkey"))
                self._valkey_port = service.ports["VALKEY_PORT"]
            number = self._databases.pop()
        try:
            yield f"redis://127.0.0.1:{self._valkey_port}/{number}"
        finally:
            self._databases.append(number)

    def start(self, file: Path, arguments: tuple[str, ...], output: Path, environment: dict[str, str]) -> int:
        """Start a program of the learner in its folder. Returns its pid. It blocks: call it in a thread."""
        request = {
            "file": file.name,
            "arguments": arguments,
            "folder": str(file.parent.absolute()),
            "environment": environment,
            "output": str(output),
        }
        with self._asking:
            launcher = self._launcher or self._start_launcher()
            assert launcher.stdin is not None
            number = len(self._started)
            launcher.stdin.write(json.dumps(request).encode() + b"\n")
            launcher.stdin.flush()
            with self._news:
                if not self._news.wait_for(lambda: len(self._started) > number, START_SECONDS):
                    raise TimeoutError("the launcher does not start the program")
            return self._started[number]

    def status(self, pid: int) -> int | None:
        """The exit status of a program, negative for a signal; None while it runs."""
        return self._ended.get(pid)

    def signal(self, pid: int, number: int) -> None:
        if pid not in self._ended:
            with suppress(ProcessLookupError):
                os.killpg(pid, number)

    def _start_launcher(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "workshop.launcher"]
        environment = default_environment() | {"PYTHONPATH": str(ROOT)}
        self._launcher = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._stack.callback(self._end_launcher, self._launcher)
        threading.Thread(target=self._listen, args=[self._launcher], daemon=True).start()
        return self._launcher

    def _listen(self, launcher: subprocess.Popen[bytes]) -> None:
        assert launcher.stdout is not None
        for line in launcher.stdout:
            answer = json.loads(line)
            with self._news:
                if "started" in answer:
                    self._ended.pop(answer["started"], None)  # the kernel has given an old pid again
                    self._started.append(answer["started"])
                else:
                    self._ended[answer["ended"]] = answer["status"]
                self._news.notify_all()

    def _end_launcher(self, launcher: subprocess.Popen[bytes]) -> None:
        assert launcher.stdin is not None
        launcher.stdin.close()  # it kills its programs and ends
        try:
            launcher.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            launcher.kill()
            launcher.wait()
        if launcher.stdout is not None:
            with suppress(ValueError):
                launcher.stdout.close()


TERM, KILL, STOP, CONT = signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT
MOVE_CLOCK = signal.SIGUSR2
