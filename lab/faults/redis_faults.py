"""Faults of Redis: no memory, no disk space, a clock that is set back, lost writes, and a restored backup."""

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from time import perf_counter_ns

import psutil
from redis import Redis

from lab.faults.fault import NoEffect
from lab.faults.preparations import CannotDo, write_clock
from lab.faults.process_faults import interrupt, kill_and_wait
from lab.faults.running import EXIT_SECONDS, LEASE_SECONDS, Running
from lab.harness.account import Injection
from lab.harness.frozen import frozen
from lab.harness.machine import alive
from lab.harness.processes import POLL_SECONDS, ROOT, ChildFailed, python

CLOCK_SECONDS = 3.0
TAIL_SECONDS, TAIL_TRIES = 3.0, 5


def fill_memory(running: Running, rng: random.Random) -> Injection:
    begin = perf_counter_ns()
    with running.redis() as redis:
        before = refused_writes(redis)
        redis.config_set("maxmemory", 1)
        try:
            time.sleep(rng.uniform(0.5, LEASE_SECONDS + 1.0))
        finally:
            redis.config_set("maxmemory", 0)
        if refused_writes(redis) == before:
            raise NoEffect("Redis has refused no write")
    return Injection(begin, perf_counter_ns())


def refused_writes(redis: Redis) -> int:
    """How many commands Redis has refused because it was out of memory."""
    return int(redis.info("errorstats").get("errorstat_OOM", {}).get("count", 0))


def fill_disk(running: Running, rng: random.Random) -> Injection:
    """Fill the disk of the append-only file. A Valkey with `appendfsync always` exits when it cannot write."""
    begin, valkey = perf_counter_ns(), psutil.Process(running.pid("redis"))
    filler = running.strategy.data_dir / "valkey" / "filler"
    try:
        with suppress(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
        wait_until_ended(valkey)
        time.sleep(rng.uniform(0.5, 3.0))
    finally:
        filler.unlink()
    return Injection(begin, perf_counter_ns())


def wait_until_ended(process: psutil.Process) -> None:
    """Raises NoEffect."""
    deadline = time.monotonic() + EXIT_SECONDS
    while alive(process):
        if time.monotonic() > deadline:
            raise NoEffect("Redis still runs although its disk is full")
        time.sleep(POLL_SECONDS)


def set_clock_back(running: Running, rng: random.Random) -> Injection:
    """By one minute to two hours. The clock stays like that, and the next fault sets it back further."""
    begin, data = perf_counter_ns(), running.strategy.data_dir
    with running.redis() as redis:
        seconds = round(rng.uniform(60.0, 7200.0))
        ahead = redis.time()[0] - time.time()
        write_clock(data, round(ahead) - seconds)
        deadline = time.monotonic() + CLOCK_SECONDS  # Valkey may answer one more time from a cached clock
        while redis.time()[0] - time.time() > ahead - seconds + 2:
            if time.monotonic() > deadline:
                raise CannotDo("Redis's clock cannot be changed: preloading has no effect on this machine")
            time.sleep(POLL_SECONDS)
    return Injection(begin, perf_counter_ns())


def cut_tail(running: Running, rng: random.Random) -> Injection:
    """Cut off what was appended to the append-only file after the last accepted email, in the middle of a command.

    With `appendfsync always` an honest disk loses nothing that Redis has confirmed. This one loses claims and
    acknowledgements that Redis has confirmed. The web server is stopped while the tail is written, so the tail has no
    accepted email in it: no queue can know of an email that its disk has lost. If no worker writes during this time,
    the web server continues before its callers time out, and the fault is tried again.
    """
    begin = perf_counter_ns()
    for _ in range(TAIL_TRIES):
        with frozen(running.pid("server")):
            if cut_what_workers_write(running, rng):
                return Injection(begin, perf_counter_ns())
        time.sleep(TAIL_SECONDS)  # the web server accepts emails, so there is work again
    raise ChildFailed("no worker writes to Redis")


def cut_what_workers_write(running: Running, rng: random.Random) -> bool:
    """Kill Redis, and cut off a part of what workers write from now on. Returns False if they write nothing."""
    redis, runner = running.pid("redis"), running.strategy.runner()
    with running.redis() as client:
        client.ping()  # Redis has now read everything that the web server had sent,
        client.ping()  # and has written it
    file = newest_file(running.strategy.data_dir / "valkey" / "appendonlydir")
    kept = file.stat().st_size
    if not grows(file, kept):
        return False
    with frozen(runner):  # otherwise it would restart Redis before the cut
        kill_and_wait(redis, signal.SIGKILL)
        os.truncate(file, kept + int(rng.random() * (file.stat().st_size - kept)))
    return True


def restore_backup(running: Running, rng: random.Random) -> Injection:
    """`make backup` while the strategy runs; a moment later stop everything, `make restore`, and start it again."""
    begin = perf_counter_ns()
    saved = copy_data(running, "backup")
    time.sleep(rng.uniform(0.5, 2.0))
    interrupt(running)
    copy_data(running, "restore", saved.rpartition(": ")[2].strip())
    running.start()
    return Injection(begin, perf_counter_ns())


def copy_data(running: Running, *words: str) -> str:
    """What `make backup` or `make restore` prints. Raises ChildFailed."""
    environment = os.environ | {"DATA_DIR": str(running.strategy.data_dir), "VALKEY_PORT": "0"}
    command = python("common.services.backup", *words)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChildFailed(done.stderr.strip())
    return done.stdout


def newest_file(folder: Path) -> Path:
    return max(folder.glob("*.incr.aof"), key=lambda path: int(path.name.split(".")[-3]))


def grows(file: Path, size: int) -> bool:
    """Whether the file becomes larger than `size` bytes within TAIL_SECONDS."""
    deadline = time.monotonic() + TAIL_SECONDS
    while file.stat().st_size <= size:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True
