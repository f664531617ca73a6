"""A mail server for one experiment: lab/harness/inbox.py as a process that can be killed, and its journal."""

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import TimeoutExpired
from urllib.request import Request, urlopen

from common.services.inbox.faults import Faults
from lab.harness.processes import END_SECONDS, Child, Lab, python


@dataclass(frozen=True, slots=True)
class Arrival:
    at: int
    """In ns, perf_counter_ns."""
    to: str
    id: str


@dataclass(frozen=True, slots=True)
class MailFault:
    """What the fault dial has done to one email."""

    at: int
    to: str
    what: str
    """The code of a refusal, "hang", or "lose_reply"."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The mail server has begun to take an email, or has lost the connection before its answer."""

    at: int
    to: str
    begins: bool


class Mailbox:
    """The mail server. It keeps its ports when it is restarted. With `attempts` it also records each attempt."""

    def __init__(self, lab: Lab, take_ms: float, *, attempts: bool = False) -> None:
        self.smtp_port = self._port = 0
        self._lab = lab
        self._journal: Path = lab.folder / "journal"
        self._watched = attempts
        self._options = ("--take-ms", take_ms, *(["--attempts"] if attempts else []))
        self._running = ExitStack()
        self._child: Child
        self._read = 0  # bytes of the journal
        self._arrivals: list[Arrival] = []
        self._mail_faults: list[MailFault] = []
        self._new: list[Arrival | MailFault | Attempt] = []

    @property
    def smtp_url(self) -> str:
        return f"smtp://127.0.0.1:{self.smtp_port}"

    @property
    def page_url(self) -> str:
        """Of its page and its API; it does not change."""
        return f"http://127.0.0.1:{self._port}/"

    @property
    def pid(self) -> int:
        return self._child.process.pid

    def start(self) -> None:
        """Returns when it accepts mail. Raises ChildFailed."""
        ports = ("--smtp-port", self.smtp_port, "--port", self._port)
        command = python("lab.harness.inbox", self._journal, *ports, *self._options)
        self._child = self._running.enter_context(self._lab.child(command, "inbox"))
        self.smtp_port, self._port = map(int, self._child.wait_for(r"(\d+ \d+)\n").split())

    def end(self, number: int = signal.SIGTERM) -> None:
        """End it by this signal, or by SIGKILL if it has not ended within END_SECONDS."""
        self._child.process.send_signal(number)
        with suppress(TimeoutExpired):
            self._child.process.wait(END_SECONDS)
        self._running.close()

    def close(self) -> None:
        self._running.close()

    def dial(self, **faults: float) -> None:
        """Set the fault dial. Faults that are not named are set to 0."""
        self._put("/api/faults", json.dumps(Faults().model_dump() | faults))

    def seed(self, seed: str) -> None:
        """Seed the dial's random generator."""
        self._put("/api/seed", seed)

    def _put(self, path: str, body: str) -> None:
        urlopen(Request(f"http://127.0.0.1:{self._port}{path}", body.encode(), method="PUT"), timeout=10).close()

    def repair(self) -> None:
        """Restart it if it has ended, and set all faults to 0. Raises ChildFailed or OSError."""
        if self._child.process.poll() is not None:
            self._running.close()
            self.start()
        self.dial()

    def arrivals(self) -> list[Arrival]:
        """All so far, in order, copies included."""
        self._read_journal()
        return self._arrivals

    def mail_faults(self) -> list[MailFault]:
        """All so far, in order."""
        self._read_journal()
        return self._mail_faults

    def new(self) -> list[Arrival | MailFault | Attempt]:
        """What the journal has recorded since the last call, in order. Only with `attempts`."""
        self._read_journal()
        new, self._new = self._new, []
        return new

    def _read_journal(self) -> None:
        with open(self._journal, "rb") as file:
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")[0]
        if whole:
            self._read += len(whole) + 1
            for line in whole.decode().split("\n"):
                self._note(*line.split(" ", 2))

    def _note(self, at: str, to: str, what: str) -> None:
        entry: Arrival | MailFault | Attempt
        if what.startswith("?"):
            entry = Attempt(int(at), to, what == "?begin")
        elif what.startswith("!"):
            entry = MailFault(int(at), to, what[1:])
            self._mail_faults.append(entry)
        else:
            entry = Arrival(int(at), to, what)
            self._arrivals.append(entry)
        if self._watched:
            self._new.append(entry)


@contextmanager
def mailbox(lab: Lab, take_ms: float = 0.0) -> Iterator[Mailbox]:
    box = Mailbox(lab, take_ms)
    box.start()
    try:
        yield box
    finally:
        box.close()
