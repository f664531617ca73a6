"""What a fault needs before the strategy starts: other settings, a clock that can be changed, a small disk.

Each preparation is a context manager that is entered before the strategy starts and left after it has ended. It yields
settings for `make run-N`.
"""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from common.settings import Settings
from lab.harness.processes import ROOT

DISK_BYTES = {"valkey": 32 << 20, "rabbitmq": 256 << 20, "nats": 64 << 20, "nats_cluster": 192 << 20}
"""The size of the small disk of each service."""

CLONE_NEWNS, MS_REC, MS_PRIVATE, MNT_DETACH = 0x20000, 0x4000, 0x40000, 2  # <sched.h>, <sys/mount.h> of Linux

Preparation = Callable[[Path], AbstractContextManager[dict[str, object]]]
"""Takes the strategy's data folder. Raises CannotDo."""


class CannotDo(Exception):
    """This fault cannot be injected on this machine. The reason is one line."""


@contextmanager
def no_preparation(data: Path) -> Iterator[dict[str, object]]:
    yield {}


@contextmanager
def default_timeouts(data: Path) -> Iterator[dict[str, object]]:
    """The strategy waits for the mail server's answers as long as it does by default."""
    yield {name.upper(): Settings.model_fields[name].default for name in ("smtp_send_seconds", "smtp_answer_seconds")}


@contextmanager
def clock(data: Path) -> Iterator[dict[str, object]]:
    """Redis takes its time of day from `clock_file`. A throttle is set, because it stores times in Redis."""
    data.mkdir(parents=True, exist_ok=True)
    write_clock(data, 0)
    yield {"LD_PRELOAD": compiled(data), "CLOCK_OFFSET_FILE": clock_file(data), "EMAILS_PER_SECOND": 100}


def clock_file(data: Path) -> Path:
    return data / "clock"


def write_clock(data: Path, seconds: int) -> None:
    """Add this number of seconds to Redis's time of day. A negative number sets the clock back."""
    octets = seconds.to_bytes(8, sys.byteorder, signed=True)
    file = os.open(clock_file(data), os.O_WRONLY | os.O_CREAT)
    try:
        os.pwrite(file, octets, 0)  # in place, because the server has mapped this file
    finally:
        os.close(file)


def compiled(data: Path) -> Path:
    """The path of the shared library that is compiled from lab/faults/clock.c. Raises CannotDo."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        raise CannotDo("Redis's clock can only be changed on Linux, with a C compiler (cc)")
    library = data / "clock.so"
    source = ROOT / "lab" / "faults" / "clock.c"
    command = [compiler, "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"]
    built = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if built.returncode:
        raise CannotDo(f"lab/faults/clock.c cannot be compiled: {built.stderr.strip().splitlines()[0]}")
    return library


def small_disk(service: str) -> Preparation:
    """Put the data of the service on a small file system of their own, which can be filled."""
    return contextmanager(partial(_small_disk, service))


def _small_disk(service: str, data: Path) -> Iterator[dict[str, object]]:
    """It is mounted in a namespace that only this process and its children see, so it disappears with them, even after
    SIGKILL.
    """
    if sys.platform != "linux" or os.geteuid():
        raise CannotDo("a full disk needs Linux and root, to mount a small file system")
    folder = data / service
    folder.mkdir(parents=True, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    _checked(libc.unshare(CLONE_NEWNS))
    _checked(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
    _checked(libc.mount(b"tmpfs", bytes(folder), b"tmpfs", 0, f"size={DISK_BYTES[service]}".encode()))
    try:
        yield {}
    finally:
        libc.umount2(bytes(folder), MNT_DETACH)


def _checked(status: int) -> None:
    if status:
        raise CannotDo(f"a small file system cannot be mounted: {os.strerror(ctypes.get_errno())}")


PREPARATIONS: dict[str, Preparation] = {
    "redis-clock": clock,
    "redis-disk": small_disk("valkey"),
    "broker-disk": small_disk("rabbitmq"),
    "nats-disk": small_disk("nats"),
    "node-disk": small_disk("nats_cluster"),
    "smtp-slow": default_timeouts,
}


def preparation(fault: str, number: int) -> Preparation:
    """The preparation for this fault in strategy `number`. Strategy 1 has no worker that could wait."""
    return PREPARATIONS.get(fault, no_preparation) if (fault, number) != ("smtp-slow", 1) else no_preparation
