"""Faults of the strategy's own processes: signals, a second worker, a restart of all, jobs that call sys.exit."""

import json
import os
import random
import signal
import time
from contextlib import suppress
from subprocess import TimeoutExpired
from time import perf_counter_ns

import psutil
from redis import Redis

from lab.faults.exiting_worker import EXIT_QUEUE, EXITS
from lab.faults.fault import Fault
from lab.faults.running import EXIT_SECONDS, Running
from lab.harness.account import Injection
from lab.harness.frozen import frozen
from lab.harness.machine import alive, descendants
from lab.harness.processes import POLL_SECONDS, Child, ChildFailed, python, still_alive

LEFT_SECONDS = 1.0  # how long processes may outlive `make`


def nothing(running: Running, rng: random.Random) -> Injection:
    now = perf_counter_ns()
    return Injection(now, now)


def kill(role: str, number: signal.Signals) -> Fault:
    """Send a signal that ends the process, and wait until it has ended."""

    def fault(running: Running, rng: random.Random) -> Injection:
        pid = running.pid(role)
        begin = perf_counter_ns()
        kill_and_wait(pid, number)
        return Injection(begin, perf_counter_ns())

    return fault


def kill_and_wait(pid: int, number: signal.Signals) -> None:
    """Returns when the process has ended. Raises ChildFailed when it does not end."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        process.send_signal(number)
        deadline = time.monotonic() + EXIT_SECONDS
        while alive(process):
            if time.monotonic() > deadline:
                raise ChildFailed(f"process {pid} does not end after {number.name}")
            time.sleep(0.001)


def stop(role: str, minimum: float, maximum: float) -> Fault:
    """SIGSTOP the process for a time between `minimum` and `maximum` seconds, then SIGCONT."""

    def fault(running: Running, rng: random.Random) -> Injection:
        pid = running.box.pid if role == "smtp" else running.pid(role)
        begin = perf_counter_ns()
        with frozen(pid):
            time.sleep(rng.uniform(minimum, maximum))
        return Injection(begin, perf_counter_ns())

    return fault


def second_worker(running: Running, rng: random.Random) -> Injection:
    """`make run-N ROLE=worker`, as from another terminal."""
    begin = perf_counter_ns()
    with running.extra_process("worker") as worker:
        worker.wait_for(r"\[worker @ (\d+)\]")
        time.sleep(rng.uniform(0.5, 1.5))
    return Injection(begin, perf_counter_ns())


def kill_scheduler(running: Running, rng: random.Random) -> Injection:
    """SIGKILL to the scheduler of `make run-5 ROLE=scheduler`, as from another terminal."""
    begin = perf_counter_ns()
    with running.extra_process("scheduler") as scheduler:
        pid = int(scheduler.wait_for(r"\[scheduler @ (\d+)\] .*ready"))
        kill_and_wait(pid, signal.SIGKILL)
    return Injection(begin, perf_counter_ns())


def end_all(running: Running, rng: random.Random) -> Injection:
    begin = perf_counter_ns()
    interrupt(running)
    running.start()
    return Injection(begin, perf_counter_ns())


def interrupt(running: Running) -> None:
    """As Ctrl-C does. Raises ChildFailed when `make` does not exit with 0, or when a process is left behind."""
    make = running.strategy.make
    family = descendants(make.process.pid)
    os.kill(running.strategy.runner(), signal.SIGTERM)  # to the runner: make would die of it and hide the exit status
    with suppress(TimeoutExpired):
        make.process.wait(EXIT_SECONDS)
    left = still_alive(family, LEFT_SECONDS)
    running.end()
    if make.process.returncode or left:
        raise ChildFailed(f"make ended with {make.process.returncode} and left {len(left)} processes behind")


def exit_in_jobs(running: Running, rng: random.Random) -> Injection:
    """Jobs call sys.exit in a worker beside the strategy's own. That worker must survive, and the jobs must fail."""
    begin = perf_counter_ns()
    with running.program(python("lab.faults.exiting_worker")) as worker, running.redis() as redis:
        worker.wait_for("(ready)")
        for name in rng.sample(list(EXITS), len(EXITS)):
            job = {"class": name, "queue": EXIT_QUEUE, "args": []}
            redis.rpush(f"resque:queue:{EXIT_QUEUE}", json.dumps(job, separators=(",", ":")))
        failed = wait_for_failed_exits(worker, redis)
        running.other_jobs_failed += len(failed)
        for record in failed:  # the account has emails only
            redis.lrem("resque:failed", 1, record)
    if worker.process.returncode:
        raise ChildFailed(f"the worker of jobs that called sys.exit ended with {worker.process.returncode}")
    return Injection(begin, perf_counter_ns())


def wait_for_failed_exits(worker: Child, redis: Redis) -> list[bytes | str]:
    """The records of these jobs in the failed list, as soon as all are there. Raises ChildFailed."""
    deadline = time.monotonic() + EXIT_SECONDS
    while len(failed := [raw for raw in redis.lrange("resque:failed", 0, -1) if is_exit_job(raw)]) < len(EXITS):
        if worker.process.poll() is not None:
            raise ChildFailed(f"a job called sys.exit, and its worker ended with {worker.process.returncode}")
        if time.monotonic() > deadline:
            raise ChildFailed(f"{len(failed)} of {len(EXITS)} jobs that called sys.exit are in the failed list")
        time.sleep(POLL_SECONDS)
    return failed


def is_exit_job(record: bytes | str) -> bool:
    return bool(json.loads(record).get("queue") == EXIT_QUEUE)
