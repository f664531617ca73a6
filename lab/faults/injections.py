"""The faults, done for real: signals to processes, a mail server that misbehaves, a Redis that is full or forgets.

Each takes the strategy and a random generator, and returns when the fault is over, with the time it took. It does
not wait for what `make run-N` starts again by itself.
"""

import json
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from subprocess import TimeoutExpired
from time import perf_counter_ns

import psutil
from redis import Redis

from lab.faults.exiting_worker import EXIT_QUEUE, EXITS
from lab.faults.preparations import CannotDo, write_clock
from lab.faults.running import GONE_SECONDS, LEASE_SECONDS, SEND_SECONDS, Running
from lab.harness.account import Injection
from lab.harness.machine import alive, descendants
from lab.harness.processes import LOOK_SECONDS, ChildFailed, python, still_alive

Fault = Callable[[Running, random.Random], Injection]

GREYLIST_SECONDS = 1
SLOW_SECONDS = 25.0
CLOCK_SECONDS = 3.0
LEFT_SECONDS = 1.0  # for the last of those that `make` has started


class NothingHappened(ChildFailed):
    """A fault was done, and it had no effect: there is nothing to measure."""


def kill(role: str, number: signal.Signals) -> Fault:
    """Send a signal that ends it, and wait until it is gone."""

    def fault(running: Running, chance: random.Random) -> Injection:
        pid = running.pid(role)
        begin = perf_counter_ns()
        send(pid, number)
        return Injection(begin, perf_counter_ns())

    return fault


def send(pid: int, number: signal.Signals) -> None:
    """Returns when the process is gone. Raises ChildFailed when it does not end."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        process.send_signal(number)
        deadline = time.monotonic() + GONE_SECONDS
        while alive(process):
            if time.monotonic() > deadline:
                raise ChildFailed(f"process {pid} does not end after {number.name}")
            time.sleep(0.001)


def stop(role: str, least: float, most: float) -> Fault:
    """Stand still for a while (seconds) and go on as if nothing had been."""

    def fault(running: Running, chance: random.Random) -> Injection:
        pid = running.box.pid if role == "smtp" else running.pid(role)
        begin = perf_counter_ns()
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(chance.uniform(least, most))
        finally:
            os.kill(pid, signal.SIGCONT)
        return Injection(begin, perf_counter_ns())

    return fault


def second_worker(running: Running, chance: random.Random) -> Injection:
    """In another terminal, as it were: `make run-N ROLE=worker`."""
    begin = perf_counter_ns()
    with running.another("worker") as worker:
        worker.wait_for(r"\[worker @ (\d+)\]")
        time.sleep(chance.uniform(0.5, 1.5))
    return Injection(begin, perf_counter_ns())


def end_mail_server(number: signal.Signals) -> Fault:
    def fault(running: Running, chance: random.Random) -> Injection:
        begin = perf_counter_ns()
        running.box.end(number)
        time.sleep(chance.uniform(0.2, 1.0))
        running.box.start()
        return Injection(begin, perf_counter_ns())

    return fault


def misbehave(least: float = 0.5, most: float = 1.5, /, **dial: float) -> Fault:
    """Turn the dial of the mail server for a while (seconds)."""

    def fault(running: Running, chance: random.Random) -> Injection:
        begin, before = perf_counter_ns(), len(running.box.troubles())
        running.box.dial(**dial)
        try:
            time.sleep(chance.uniform(least, most))
        finally:
            running.box.dial()
        if len(running.box.troubles()) == before:
            raise NothingHappened("the mail server had no email to misbehave with")
        return Injection(begin, perf_counter_ns())

    return fault


def answer_late(running: Running, chance: random.Random) -> Injection:
    """The mail server keeps each email at once and says so SLOW_SECONDS later."""
    begin, before = perf_counter_ns(), len(running.box.arrivals())
    running.box.dial(latency_ms=round(SLOW_SECONDS * 1000))
    try:
        time.sleep(chance.uniform(0.5, 1.5))
    finally:
        running.box.dial()
    if len(running.box.arrivals()) == before:
        raise NothingHappened("the mail server had no email to answer late")
    return Injection(begin, perf_counter_ns())


def end_all(running: Running, chance: random.Random) -> Injection:
    """As Ctrl-C does. Raises ChildFailed when `make` does not end with 0, or when something is left behind."""
    begin, make = perf_counter_ns(), running.strategy.make
    family = descendants(make.process.pid)
    os.kill(running.strategy.runner(), signal.SIGTERM)  # not to make, which would die of it and tell us nothing
    with suppress(TimeoutExpired):
        make.process.wait(GONE_SECONDS)
    left = still_alive(family, LEFT_SECONDS)
    running.end()
    if make.process.returncode or left:
        raise ChildFailed(f"make ended with {make.process.returncode} and left {len(left)} processes behind")
    running.start()
    return Injection(begin, perf_counter_ns())


def fill_redis(running: Running, chance: random.Random) -> Injection:
    begin = perf_counter_ns()
    with running.redis() as redis:
        before = refused_writes(redis)
        redis.config_set("maxmemory", 1)
        try:
            time.sleep(chance.uniform(0.5, LEASE_SECONDS + 1.0))
        finally:
            redis.config_set("maxmemory", 0)
        if refused_writes(redis) == before:
            raise NothingHappened("Redis has refused nothing")
    return Injection(begin, perf_counter_ns())


def refused_writes(redis: Redis) -> int:
    """How often it has said that it is full."""
    return int(redis.info("errorstats").get("errorstat_OOM", {}).get("count", 0))


def fill_disk(running: Running, chance: random.Random) -> Injection:
    """Fill the disk of the append-only file. A Valkey with `appendfsync always` ends when it cannot write."""
    begin, valkey = perf_counter_ns(), psutil.Process(running.pid("redis"))
    ballast = running.strategy.data_dir / "valkey" / "ballast"
    try:
        with suppress(OSError), open(ballast, "wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
        wait_until_gone(valkey)
        time.sleep(chance.uniform(0.5, 3.0))
    finally:
        ballast.unlink()
    return Injection(begin, perf_counter_ns())


def wait_until_gone(process: psutil.Process) -> None:
    deadline = time.monotonic() + GONE_SECONDS
    while alive(process):
        if time.monotonic() > deadline:
            raise NothingHappened("Redis has written on although its disk is full")
        time.sleep(LOOK_SECONDS)


def put_clock_back(running: Running, chance: random.Random) -> Injection:
    """By one minute to two hours; it stays so, and the next fault puts it back further."""
    begin, data = perf_counter_ns(), running.strategy.data_dir
    with running.redis() as redis:
        seconds = round(chance.uniform(60.0, 7200.0))
        ahead = redis.time()[0] - time.time()
        write_clock(data, round(ahead) - seconds)
        deadline = time.monotonic() + CLOCK_SECONDS  # Valkey may answer one more time from a cached clock
        while redis.time()[0] - time.time() > ahead - seconds + 2:
            if time.monotonic() > deadline:
                raise CannotDo("Redis's clock cannot be changed: preloading has no effect on this machine")
            time.sleep(LOOK_SECONDS)
    return Injection(begin, perf_counter_ns())


def exit_in_jobs(running: Running, chance: random.Random) -> Injection:
    """Jobs that call sys.exit, in a worker beside the strategy's own. That worker must live, and the jobs must fail."""
    begin = perf_counter_ns()
    with running.beside(python("lab.faults.exiting_worker")) as worker, running.redis() as redis:
        worker.wait_for("(ready)")
        for name in chance.sample(list(EXITS), len(EXITS)):
            job = {"class": name, "queue": EXIT_QUEUE, "args": []}
            redis.rpush(f"resque:queue:{EXIT_QUEUE}", json.dumps(job, separators=(",", ":")))
        deadline = time.monotonic() + GONE_SECONDS
        while len(failed := [raw for raw in redis.lrange("resque:failed", 0, -1) if names_exit(raw)]) < len(EXITS):
            if worker.process.poll() is not None:
                raise ChildFailed(f"a job called sys.exit, and its worker ended with {worker.process.returncode}")
            if time.monotonic() > deadline:
                raise ChildFailed(f"{len(failed)} of {len(EXITS)} jobs that called sys.exit are in the failed list")
            time.sleep(LOOK_SECONDS)
        running.other_jobs_failed += len(failed)
        for raw in failed:  # only emails are in the account
            redis.lrem("resque:failed", 1, raw)
    if worker.process.returncode:
        raise ChildFailed(f"the worker of jobs that called sys.exit ended with {worker.process.returncode}")
    return Injection(begin, perf_counter_ns())


def names_exit(record: bytes) -> bool:
    return bool(json.loads(record).get("queue") == EXIT_QUEUE)


def cut_tail(running: Running, chance: random.Random) -> Injection:
    """Take from the append-only file what came after the last email that was accepted, in the middle of a command.

    A disk that keeps its word loses nothing that Redis has answered for (`appendfsync always`). This one is worse: it
    loses claims and acknowledgements that were answered. The accepted emails themselves are spared, as no queue can
    know of an email that its disk has taken back; so the server stands still while the tail is written.
    """
    server, redis, runner = running.pid("server"), running.pid("redis"), running.strategy.runner()
    begin = perf_counter_ns()
    os.kill(server, signal.SIGSTOP)
    try:
        with running.redis() as client:
            client.ping()  # what the server had sent has now been read,
            client.ping()  # and been written
        file = newest_file(running.strategy.data_dir / "valkey" / "appendonlydir")
        kept = file.stat().st_size
        wait_until_larger(file, kept)
        os.kill(runner, signal.SIGSTOP)  # or it would start Redis again before the cut
        try:
            send(redis, signal.SIGKILL)
            os.truncate(file, kept + int(chance.random() * (file.stat().st_size - kept)))
        finally:
            os.kill(runner, signal.SIGCONT)
    finally:
        os.kill(server, signal.SIGCONT)
    return Injection(begin, perf_counter_ns())


def newest_file(folder: Path) -> Path:
    return max(folder.glob("*.incr.aof"), key=lambda path: int(path.name.split(".")[-3]))


def wait_until_larger(file: Path, size: int) -> None:
    deadline = time.monotonic() + GONE_SECONDS
    while file.stat().st_size <= size:
        if time.monotonic() > deadline:
            raise ChildFailed("nobody writes to Redis")
        time.sleep(0.001)


def nothing(running: Running, chance: random.Random) -> Injection:
    now = perf_counter_ns()
    return Injection(now, now)


INJECTIONS: dict[str, Fault] = {
    "none": nothing,
    "server-kill": kill("server", signal.SIGKILL),
    "server-term": kill("server", signal.SIGTERM),
    "server-stop": stop("server", 0.2, 1.5),
    "worker-kill": kill("worker", signal.SIGKILL),
    "worker-term": kill("worker", signal.SIGTERM),
    "worker-stop": stop("worker", LEASE_SECONDS + 0.5, LEASE_SECONDS + 1.5),
    "worker-second": second_worker,
    "master-kill": kill("master", signal.SIGKILL),
    "scheduler-kill": kill("scheduler", signal.SIGKILL),
    "all-term": end_all,
    "redis-kill": kill("redis", signal.SIGKILL),
    "redis-restart": kill("redis", signal.SIGTERM),
    "redis-stop": stop("redis", 0.5, LEASE_SECONDS + 1.0),
    "nats-kill": kill("nats", signal.SIGKILL),
    "nats-restart": kill("nats", signal.SIGTERM),
    "nats-stop": stop("nats", 0.5, LEASE_SECONDS + 1.0),
    "redis-full": fill_redis,
    "redis-tail": cut_tail,
    "redis-disk": fill_disk,
    "redis-clock": put_clock_back,
    "smtp-kill": end_mail_server(signal.SIGKILL),
    "smtp-term": end_mail_server(signal.SIGTERM),
    "smtp-stop": stop("smtp", 0.5, SEND_SECONDS + 1.0),
    "smtp-451": misbehave(refuse_rate=0.5, refuse_code=451),
    "smtp-550": misbehave(refuse_rate=0.5, refuse_code=550),
    "smtp-hang": misbehave(hang_rate=1.0),
    "smtp-lose-reply": misbehave(lose_reply_rate=0.5),
    "smtp-greylist": misbehave(GREYLIST_SECONDS + 0.5, GREYLIST_SECONDS + 1.5, greylist_seconds=GREYLIST_SECONDS),
    "smtp-session": misbehave(messages_per_session=3),
    "smtp-slow": answer_late,
    "job-exit": exit_in_jobs,
}
