"""Mail servers for benchmarks: Postfix's smtp-sink, the fastest, or our own, which records every Message-ID."""

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

POLL_SECONDS = 0.05
QUIET_SECONDS = 0.2  # when all emails have arrived: how long to wait for further copies
GIVE_UP_SECONDS = 3.0  # when emails are missing: how long to wait for them


# For a program without a lifeline: the shell kills it when the standard input of the shell is closed.
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
    """Wait until `expected` emails have arrived and no more come, or until none has come for GIVE_UP_SECONDS."""
    seen, since = -1, time.monotonic()
    while True:
        if (count := sink.count()) != seen:
            seen, since = count, time.monotonic()
        if time.monotonic() - since > (QUIET_SECONDS if count >= expected else GIVE_UP_SECONDS):
            return
        time.sleep(POLL_SECONDS)


@dataclass(frozen=True)
class LabSink:
    """lab/harness/sink.py as a separate process."""

    port: int
    name: str = "lab.harness.sink"

    def count(self) -> int:
        return int(self._ask("XCOUNT"))

    def arrivals(self) -> list[tuple[str, int]]:
        """The Message-ID and the time (perf_counter_ns) of each message in the order of arrival, copies included."""
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
    """`smtp-sink -c`, which writes its counters after each message, at the cost of one system call."""

    port: int
    child: Child
    name: str = "smtp-sink"

    def count(self) -> int:
        found = re.findall(r"mesg=(\d+)", self.child.text())
        return int(found[-1]) if found else 0


@contextmanager
def lab_sink(lab: Lab, latency_ms: float = 0.0, *, chunking: bool = True) -> Iterator[LabSink]:
    options = ["--latency-ms", latency_ms, *([] if chunking else ["--no-chunking"])]
    with lab.child(python("lab.harness.sink", *options), "sink") as child:
        yield LabSink(int(child.wait_for(r"(\d+)\n")))


@contextmanager
def fastest_sink(lab: Lab) -> Iterator[CountingSink]:
    """Postfix's smtp-sink if it is installed, else our own."""
    program = smtp_sink_program()
    if program is None:
        with lab_sink(lab) as own:
            yield own
        return
    port = free_port("127.0.0.1", 0)
    user = ["-u", "nobody"] if os.geteuid() == 0 else []  # smtp-sink refuses to run as root
    command = [program, "-c", "-m", "1000", *user, f"127.0.0.1:{port}", "1000"]
    with lab.child([*WITH_LIFELINE, *command], "smtp-sink") as child:
        sink = PostfixSink(port, child)
        wait_until_open(child, port)
        yield sink


def smtp_sink_program() -> str | None:
    return shutil.which("smtp-sink", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/libexec"]))
