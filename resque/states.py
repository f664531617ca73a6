"""What Observer and Queues return, and how it is read from the keys."""

import re
from dataclasses import dataclass
from typing import Any

import orjson

from asynckit.ids import made_at

from .dates import moment_of
from .wire import BadJob, Job, job_of, read_job

ALIVE_SECONDS = 70.0  # Ruby sends a heartbeat every 60 s, Node every 5 s, our workers three times in a lease


@dataclass(frozen=True, slots=True)
class QueueState:
    name: str
    length: int | None
    """None if its key is not a list."""
    oldest_seconds: float | None
    """The age of the job at the head; None if the queue is empty or the id of the job contains no time."""
    paused: str | None
    """Why it is paused; None if it is not."""


@dataclass(frozen=True, slots=True)
class WorkerState:
    id: str
    queues: str
    started: str
    """As it was written; Ruby and Node use different formats."""
    seen_seconds: float | None
    """Since its last heartbeat; None if there is none."""
    ours: bool
    working: bool
    job: Job | None
    """The job that it runs, if that can be read."""
    working_seconds: float | None

    @property
    def alive(self) -> bool:
        # A heartbeat far in the future does not show that the worker is alive.
        return self.seen_seconds is not None and abs(self.seen_seconds) <= ALIVE_SECONDS


@dataclass(frozen=True, slots=True)
class Moment:
    """Ten seconds of the past. `waits` is a histogram of succeeded jobs' waiting times: bucket n is up to 2^n ms."""

    second: int
    succeeded: int
    failed: int
    retried: int
    waits: dict[int, int]

    def waited(self, percent: float) -> float | None:
        """A percentile of the waiting time in seconds, as an upper bound (a power of two in ms); None without jobs."""
        total, seen = sum(self.waits.values()), 0
        for power, number in sorted(self.waits.items()):
            seen += number
            if seen * 100 >= total * percent:
                return float(2**power) / 1000
        return None


def age_of_raw(raw: object, now: float) -> float | None:
    """Seconds since the id of this job was made; None if it cannot be known."""
    if not isinstance(raw, bytes):
        return None
    try:
        return age_of(read_job(raw), now)
    except BadJob:
        return None


def age_of(job: Job | None, now: float) -> float | None:
    made = made_at(job.id) if job is not None and job.id else None
    return None if made is None else max(0.0, now - made)


def worker_state(
    worker_id: str, now: float, working: object, started: object, ping: object, beat: object, *, ours: bool
) -> WorkerState:
    _, _, queues = (*worker_id.split(":", 2), "", "")[:3]
    seen = [moment for moment in (_ping_moment(ping), moment_of(beat)) if moment is not None]
    job, run_at = working_job(working)
    return WorkerState(
        worker_id,
        queues,
        text_of(started) if isinstance(started, bytes) else "",
        now - max(seen) if seen else None,
        ours,
        working is not None,
        job,
        None if run_at is None else max(0.0, now - run_at),
    )


def _ping_moment(ping: object) -> float | None:
    members = _loads(ping)
    moment = members.get("time") if isinstance(members, dict) else None
    return float(moment) if isinstance(moment, (int, float)) else None


def working_job(record: object) -> tuple[Job | None, float | None]:
    members = _loads(record)
    if not isinstance(members, dict):
        return None, None
    queue = members.get("queue")
    try:
        payload = members.get("payload")
        job = job_of(payload, queue if isinstance(queue, str) else "", orjson.dumps(payload).decode())
    except (BadJob, TypeError):  # TypeError: orjson reads deeper nesting than it writes
        return None, None
    return job, moment_of(members.get("run_at"))


def moment_from(second: int, fields: dict[bytes, bytes]) -> Moment:
    numbers = integers(fields)
    waits = {
        int(name.removeprefix("waited:")): number
        for name, number in numbers.items()
        if re.fullmatch(r"waited:\d{1,3}", name, re.ASCII)
    }
    succeeded, failed, retried = (numbers.get(name, 0) for name in ("succeeded", "failed", "retried"))
    return Moment(second, succeeded, failed, retried, waits)


def integers(fields: dict[bytes, bytes]) -> dict[str, int]:
    """The counters whose values are integers in the range of Redis."""
    return {text_of(name): int(value) for name, value in fields.items() if value.isdigit() and len(value) < 20}


def _loads(data: object) -> Any:
    try:
        return orjson.loads(data) if isinstance(data, bytes) else None
    except orjson.JSONDecodeError:
        return None


def text_of(data: bytes) -> str:
    return data.decode(errors="replace")
