"""Where measured mail goes: Postfix's smtp-sink, the fastest, or our own, which knows every Message-ID."""

import os
import re
import shutil
import smtplib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from common.address import free_port
from lab.harness.processes import Child, Lab, python, wait_until_open

LOOK_SECONDS = 0.05
QUIET_SECONDS = 0.2  # for a copy that comes after all others
GIVE_UP_SECONDS = 3.0


# For a program that knows no lifeline: it ends when the standard input of its shell does.
WITH_LIFELINE = ("/bin/sh", "-c", '"$@" & while read -r _; do :; done; kill $!', "sh")


class CountingSink(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def port(self) -> int: ...
    def count(self) -> int:
        """The messages so far."""


def url_of(sink: CountingSink) -> str:
    return f"smtp://127.0.0.1:{sink.port}"


def wait_for_mail(sink: CountingSink, expected: int) -> None:
    """Wait until so many have arrived and no more come, or until none has come for so long that none will."""
    seen, since = -1, time.monotonic()
    while True:
        if (count := sink.count()) != seen:
            seen, since = count, time.monotonic()
        if time.monotonic() - since > (QUIET_SECONDS if count >= expected else GIVE_UP_SECONDS):
            return
        time.sleep(LOOK_SECONDS)


@dataclass(frozen=True)
class LabSink:
    """lab/harness/sink.py as a process of its own."""

    port: int
    name: str = "lab.harness.sink"

    def count(self) -> int:
        return int(self._ask("XCOUNT"))

    def arrivals(self) -> list[tuple[str, int]]:
        """The Message-ID and the moment (perf_counter_ns) of each message in the order of arrival, copies included."""
        lines = [line.partition(" ") for line in self._ask("XARRIVALS").split("\n")[:-1]]
        return [(message_id, int(moment)) for moment, _, message_id in lines]

    def ids(self) -> list[str]:
        return [message_id for message_id, _ in self.arrivals()]

    def _ask(self, command: str) -> str:
        with smtplib.SMTP("127.0.0.1", self.port, local_hostname="lab") as smtp:
            _, reply = smtp.docmd(command)
        return reply.decode()


@dataclass(frozen=True)
class PostfixSink:
    """`smtp-sink -c`: it writes its counters after each message, at the cost of one system call."""

    port: int
    child: Child
    name: str = "smtp-sink"

    def count(self) -> int:
        found = re.findall(r"mesg=(\d+)", self.child.text())
        return int(found[-1]) if found else 0


@contextmanager
def lab_sink(lab: Lab, latency_ms: float = 0.0) -> Iterator[LabSink]:
    with lab.child(python("lab.harness.sink", "--latency-ms", latency_ms), "sink") as child:
        yield LabSink(int(child.wait_for(r"(\d+)\n")))


@contextmanager
def fastest_sink(lab: Lab) -> Iterator[CountingSink]:
    """Postfix's where it is installed, else our own."""
    program = smtp_sink_program()
    if program is None:
        with lab_sink(lab) as own:
            yield own
        return
    port = free_port("127.0.0.1", 0)
    user = ["-u", "nobody"] if os.geteuid() == 0 else []  # it refuses to run as root
    command = [program, "-c", "-m", "1000", *user, f"127.0.0.1:{port}", "1000"]
    with lab.child([*WITH_LIFELINE, *command], "smtp-sink") as child:
        sink = PostfixSink(port, child)
        wait_until_open(child, port)
        yield sink


def smtp_sink_program() -> str | None:
    return shutil.which("smtp-sink", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/libexec"]))
