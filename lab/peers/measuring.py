"""Measures one peer: its rates, its delay from idle, and what a `kill -9` of its worker loses or repeats."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

from lab.harness.figures import Facts
from lab.harness.processes import ROOT, Child, ChildFailed, Lab
from lab.harness.valkey import valkey
from lab.peers.account import account, idle_times, in_flight, rate_of, read_runs
from lab.peers.catalogue import Peer

CALLERS = 200
IDLE_PAUSE_MS = 20
KILL_JOB_MS = 50  # how long a job sleeps, so that some are in flight when the worker is killed
SECONDS = 180.0  # the limit of each step; the slowest peer takes a fifth of it
SETTLE_SECONDS = 3.0  # after the last job was done: a repeated job would run in this time
END_SECONDS = 3.0
POLL_SECONDS = 0.01

_numbers = count(1)


@dataclass(frozen=True)
class Sizes:
    jobs: int
    idle_jobs: int
    kill_jobs: int
    wait_seconds: float
    """How long to wait at most, after a kill, for the jobs that are not done."""


class Subject:
    """A peer with a Valkey of its own, which writes to disk before it answers."""

    def __init__(self, lab: Lab, peer: Peer, command: list[str], url: str) -> None:
        self._lab = lab
        self._peer = peer
        self._command = command
        self.record = lab.folder / f"{next(_numbers)}-{peer.name}.runs"
        self._settings = {"REDIS_URL": url, "RECORD": self.record, "PYTHONPATH": ROOT}

    def enqueue(self, first: int, jobs: int, callers: int = CALLERS, pause_ms: int = 0) -> Facts:
        command = [*self._command, "enqueue", *map(str, (first, jobs, callers, pause_ms))]
        with self._lab.child(command, f"{self._peer.name}-enqueue", False, END_SECONDS, **self._settings) as child:
            try:
                return child.result(SECONDS)
            except ChildFailed as failure:
                raise with_reason(failure, child) from None

    @contextmanager
    def working(self, job_ms: int = 0) -> Iterator[Child]:
        command = [*self._command, "work", str(self._peer.concurrency), str(job_ms)]
        with self._lab.child(command, f"{self._peer.name}-worker", False, END_SECONDS, **self._settings) as child:
            yield child

    def wait_for(self, done: Callable[[int], bool], worker: Child, seconds: float = SECONDS) -> bool:
        """Wait until `done` is true for the number of different jobs done. False after `seconds`; ChildFailed."""
        deadline = time.monotonic() + seconds
        while not done(len({number for number, _ in read_runs(self.record)})):
            if worker.process.poll() is not None:
                raise with_reason(worker.failure(), worker)
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True


def with_reason(failure: ChildFailed, child: Child) -> ChildFailed:
    """Node prints the error first, and its own version in the last line."""
    errors = [line for line in child.lines if re.match(r"\w*Error\b", line)]
    return ChildFailed(f"{child.name}: {errors[-1]}") if errors else failure


@contextmanager
def subject(lab: Lab, peer: Peer, command: list[str]) -> Iterator[Subject]:
    with valkey(lab) as url:
        yield Subject(lab, peer, command, url)


def measure_rates(lab: Lab, peer: Peer, command: list[str], sizes: Sizes) -> Facts:
    """Enqueue the jobs, work them off, and then enqueue single ones for the idle worker. Raises ChildFailed."""
    jobs, whole = sizes.jobs, sizes.jobs + sizes.idle_jobs
    with subject(lab, peer, command) as own:
        enqueued = own.enqueue(0, jobs)
        with own.working() as worker:
            if not own.wait_for(lambda done: done >= jobs, worker):
                raise ChildFailed(f"{peer.name}: {jobs:,} jobs were not done within {SECONDS:g} s")
            worked = rate_of(read_runs(own.record))
            time.sleep(1.0)  # until the worker is idle
            asked = own.enqueue(jobs, sizes.idle_jobs, 1, IDLE_PAUSE_MS)["asked_ns"]
            if not own.wait_for(lambda done: done >= whole, worker):
                raise ChildFailed(f"{peer.name}: {sizes.idle_jobs} single jobs were not done within {SECONDS:g} s")
            idle = idle_times(asked, read_runs(own.record))
    return {"enqueued": jobs / enqueued["seconds"], "worked": worked, **idle}


def measure_kill(lab: Lab, peer: Peer, command: list[str], sizes: Sizes) -> Facts:
    """Kill the worker when half of the jobs are done, and start another. Raises ChildFailed."""
    jobs = sizes.kill_jobs
    with subject(lab, peer, command) as own:
        own.enqueue(0, jobs)
        with own.working(KILL_JOB_MS) as worker:
            if not own.wait_for(lambda done: done >= jobs / 2 and in_flight(own.record) > 0, worker):
                raise ChildFailed(f"{peer.name}: no job was in flight in the second half of {jobs:,}")
            os.killpg(worker.process.pid, signal.SIGKILL)
            worker.process.wait()
        at_kill, flying = len(read_runs(own.record)), in_flight(own.record)
        started = time.monotonic()
        with own.working(KILL_JOB_MS) as worker:
            whole = own.wait_for(lambda done: done >= jobs, worker, sizes.wait_seconds)
            waited = time.monotonic() - started
            if whole:
                time.sleep(SETTLE_SECONDS)
        found = {"jobs": jobs, "at_kill": at_kill, "in_flight": flying, "waited_seconds": waited}
        return account(read_runs(own.record), jobs) | found
