"""Faults of RabbitMQ and NATS: a full disk, a full stream, and the node of a cluster that leads the stream."""

import asyncio
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shutil import disk_usage
from time import perf_counter_ns
from typing import Any

from eventlog.errors import LogError
from eventlog.nats_client import Nats
from lab.faults.fault import NoEffect
from lab.faults.process_faults import kill_and_wait
from lab.faults.running import EXIT_SECONDS, Running
from lab.harness.account import Injection
from lab.harness.processes import POLL_SECONDS

STREAM = "eventlog"
# RabbitMQ raises its alarm below `disk_free_limit`, by default 50 MB, and looks at least every ten seconds.
LEFT_BYTES = 45_000_000


def kill_leader(running: Running, rng: random.Random) -> Injection:
    """Send SIGKILL to the node that leads the stream, when all three nodes have all events."""
    leader = asyncio.run(_leader(running))
    pid = int((running.strategy.data_dir / "nats_cluster" / f"{leader}.pid").read_text())
    begin = perf_counter_ns()
    kill_and_wait(pid, signal.SIGKILL)
    return Injection(begin, perf_counter_ns())


async def _leader(running: Running) -> str:
    """Raises NoEffect."""
    streams = (STREAM, f"{STREAM}_again", f"KV_{STREAM}_parked", f"KV_{STREAM}_notes")
    deadline, why = time.monotonic() + EXIT_SECONDS, ""
    while time.monotonic() < deadline:
        with suppress(LogError):
            async with Nats(running.strategy.nats_url()) as nats:
                clusters = [(await nats.api(f"STREAM.INFO.{name}"))["cluster"] for name in streams]
            replicas = [replica for cluster in clusters for replica in cluster["replicas"]]
            behind = {replica["name"] for replica in replicas if not replica["current"] or replica.get("offline")}
            if not behind and all(cluster.get("leader") for cluster in clusters):
                return str(clusters[0]["leader"])
            why = f": {', '.join(sorted(behind))}"
        await asyncio.sleep(POLL_SECONDS)
    raise NoEffect(f"a node of NATS has not caught up within {EXIT_SECONDS:g} s{why}")


def fill_stream(running: Running, rng: random.Random) -> Injection:
    """Set the limit of the stream to what it holds now, as if its operator had given it too little space."""
    begin = perf_counter_ns()
    asyncio.run(_set_limit(running, None))
    try:
        wait_until_refused(running)
        time.sleep(rng.uniform(0.5, 3.0))
    finally:
        asyncio.run(_set_limit(running, -1))
    return Injection(begin, perf_counter_ns())


async def _set_limit(running: Running, limit: int | None) -> None:
    """`limit`: in bytes. -1 means no limit, None the size that the stream has now."""
    async with Nats(running.strategy.nats_url()) as nats:
        found: dict[str, Any] = await nats.api(f"STREAM.INFO.{STREAM}")
        changed = found["config"] | {"max_bytes": found["state"]["bytes"] if limit is None else limit}
        await nats.api(f"STREAM.UPDATE.{STREAM}", **changed)


def fill_disk(service: str, left: int) -> Callable[[Running, random.Random], Injection]:
    """Fill the disk of the service's data until only `left` bytes are free, and empty it after a refusal."""

    def fault(running: Running, rng: random.Random) -> Injection:
        begin, filler = perf_counter_ns(), running.strategy.data_dir / service / "filler"
        try:
            fill(filler, left)
            wait_until_refused(running)
            time.sleep(rng.uniform(0.5, 3.0))
        finally:
            filler.unlink()
        return Injection(begin, perf_counter_ns())

    return fault


def fill(file: Path, left: int) -> None:
    with suppress(OSError), open(file, "wb", buffering=0) as filler:
        while (free := disk_usage(file.parent).free) > left:
            filler.write(bytes(min(1 << 20, free - left)))


def wait_until_refused(running: Running) -> None:
    """Wait until the strategy says that it cannot accept an email. Raises NoEffect."""
    deadline = time.monotonic() + EXIT_SECONDS
    while running.strategy.unhealthy() is None:
        if time.monotonic() > deadline:
            raise NoEffect(f"the strategy accepts emails {EXIT_SECONDS:g} s after the fault began")
        time.sleep(POLL_SECONDS)
