"""Reads the state of the queues: lengths and waiting times, workers and their jobs, counters, the last minutes.

It only reads, and it accepts whatever another program may have written into a key: a value that cannot be read is
reported as unknown or left out, and never raises an error. Whether a worker is alive follows from the age of its last
heartbeat at the time of reading.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from asynckit.ids import made_at

from .keys import CHART_SECONDS, Keys
from .wire import BadJob, Job, job_of, read_job

ALIVE_SECONDS = 70.0  # Ruby sends a heartbeat every 60 s, Node every 5 s, our workers three times in a lease
OVERDUE_SECONDS = 15.0  # three polls of another program's leader: a delayed job that is due for longer is overdue
MOST_SECONDS = 1000  # at most this many different seconds of delayed jobs are counted

_JS_DATE = re.compile(r"^\w{3} (\w{3}) (\d{2}) (\d{4}) (\d\d:\d\d:\d\d) GMT([+-]\d{4})")


@dataclass(frozen=True, slots=True)
class QueueState:
    name: str
    length: int | None
    """None if its key is not a list."""
    oldest_seconds: float | None
    """The age of the job at the head; None if the queue is empty or the id holds no time."""
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
        return (
            self.seen_seconds is not None and abs(self.seen_seconds) <= ALIVE_SECONDS
        )  # a date in the future proves nothing


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


class Observer:
    """Methods raise RedisError when Redis does not answer."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis: Any = redis  # its types say that answers may be str
        self._keys = keys

    async def now(self) -> float:
        seconds, microseconds = await self._redis.time()
        return float(seconds) + float(microseconds) / 1e6

    async def names(self) -> list[str]:
        """The names of all queues."""
        return sorted(_text(name) for name in await _or_nothing(self._redis.smembers(self._keys.queues)))

    async def queues(self) -> list[QueueState]:
        return await self.states(await self.names())

    async def states(self, names: Sequence[str]) -> list[QueueState]:
        """The states of these queues."""
        keys = self._keys
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.get(keys.pause_all)
        for name in names:
            pipeline.llen(keys.queue(name)).lindex(keys.queue(name), 0).get(keys.paused(name))
        pause_all, *found = await pipeline.execute(raise_on_error=False)
        now, all_paused = time.time(), isinstance(pause_all, bytes) and pause_all.lower() == b"true"
        states = []
        for number, name in enumerate(names):
            length, head, paused = found[3 * number : 3 * number + 3]
            reason = "pause-all-workers is set" if all_paused else _text(paused) if isinstance(paused, bytes) else None
            states.append(QueueState(name, length if isinstance(length, int) else None, _age(head, now), reason))
        return states

    async def delayed(self) -> tuple[int, bool]:
        """How many jobs are delayed; and True if there are more, due at more than MOST_SECONDS different seconds."""
        seconds = await _or_nothing(self._redis.zrange(self._keys.schedule, 0, MOST_SECONDS))
        pipeline = self._redis.pipeline(transaction=False)
        for second in seconds[:MOST_SECONDS]:
            pipeline.llen(self._keys.key("delayed", _text(second)))
        lengths = await pipeline.execute(raise_on_error=False)
        return sum(length for length in lengths if isinstance(length, int)), len(seconds) > MOST_SECONDS

    async def next_delayed(self) -> float | None:
        """Seconds until the next delayed job is due; None if no job is delayed."""
        found = await _or_nothing(self._redis.zrange(self._keys.schedule, 0, 0))
        return max(0.0, float(found[0]) - await self.now()) if found and found[0].isdigit() else None

    async def overdue(self) -> tuple[int, float]:
        """How many delayed jobs should already have been promoted, and for how many seconds the oldest has been due.

        At most MOST_SECONDS different seconds are read, as in `delayed`.
        """
        limit = await self.now() - OVERDUE_SECONDS
        seconds = await _or_nothing(
            self._redis.zrange(self._keys.schedule, "-inf", limit, byscore=True, offset=0, num=MOST_SECONDS)
        )
        pipeline = self._redis.pipeline(transaction=False)
        for second in seconds:
            pipeline.llen(self._keys.key("delayed", _text(second)))
        lengths = [length for length in await pipeline.execute(raise_on_error=False) if isinstance(length, int)]
        oldest = float(seconds[0]) if seconds and seconds[0].isdigit() else limit
        return sum(lengths), limit + OVERDUE_SECONDS - oldest if sum(lengths) else 0.0

    async def oldest_elsewhere(self) -> float | None:
        """The age (seconds) of the oldest job that is in flight or delayed; None if no id holds a time.

        Of the jobs that are delayed until the same second, only the first is read.
        """
        members = await _or_nothing(self._redis.smembers(self._keys.workers))
        seconds = await _or_nothing(self._redis.zrange(self._keys.schedule, 0, MOST_SECONDS - 1))
        pipeline = self._redis.pipeline(transaction=False)
        for member in members:
            pipeline.get(self._keys.worker(_text(member)))
        for second in seconds:
            pipeline.lindex(self._keys.key("delayed", _text(second)), 0)
        found = await pipeline.execute(raise_on_error=False)
        jobs = [_working(record)[0] for record in found[: len(members)]]
        now = time.time()
        ages = [_age_of(job, now) for job in jobs] + [_age(raw, now) for raw in found[len(members) :]]
        return max((age for age in ages if age is not None), default=None)

    async def failed(self) -> int:
        """The length of the failed list."""
        with_errors = await _or_nothing(self._redis.llen(self._keys.failed))
        return with_errors if isinstance(with_errors, int) else 0

    async def failed_elsewhere(self) -> dict[str, int]:
        """The lists of Ruby's RedisMultiQueue, one for each queue, with the number of failures in each."""
        found = await _or_nothing(self._redis.smembers(self._keys.failed_queues))
        names = sorted(_text(name) for name in found)
        pipeline = self._redis.pipeline(transaction=False)
        for name in names:
            pipeline.llen(self._keys.key(name))
        lengths = await pipeline.execute(raise_on_error=False)
        return {name: length for name, length in zip(names, lengths, strict=True) if isinstance(length, int) and length}

    async def totals(self) -> dict[str, int]:
        """Counters of our workers since the beginning: succeeded, failed, retried, crashed, late."""
        found = await _or_nothing(self._redis.hgetall(self._keys.totals))
        totals = dict.fromkeys(("succeeded", "failed", "retried", "crashed", "late"), 0)
        return totals | _numbers(dict(found))

    async def in_flight(self) -> int:
        """How many jobs are in flight, in workers of any language."""
        members = await _or_nothing(self._redis.smembers(self._keys.workers))
        names = [self._keys.worker(_text(member)) for member in members]
        return int(await self._redis.exists(*names)) if names else 0

    async def processes(self) -> int:
        """How many worker processes are registered; all slots of a process count as one."""
        members = await _or_nothing(self._redis.smembers(self._keys.workers))
        return len({_text(member).split("+", 1)[0] if b"+" in member else _text(member) for member in members})

    async def workers(self, most: int | None = None) -> list[WorkerState]:
        """All registered workers, or at most `most` of them."""
        keys = self._keys
        ids = sorted(_text(member) for member in await _or_nothing(self._redis.smembers(keys.workers)))[:most]
        if not ids:
            return []
        names = [":".join(worker_id.split(":", 2)[:2]) for worker_id in ids]
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.mget([keys.worker(worker_id) for worker_id in ids])
        pipeline.mget([keys.started(worker_id) for worker_id in ids])
        pipeline.mget([keys.ping(name) for name in names])
        pipeline.hmget(keys.heartbeats, ids)
        pipeline.zmscore(keys.leases, ids)
        answers = await pipeline.execute(raise_on_error=False)
        working, started, pings, beats, leases = ([None] * len(ids) if isinstance(a, Exception) else a for a in answers)
        now = await self.now()
        return [
            _worker_state(worker_id, now, working[i], started[i], pings[i], beats[i], ours=leases[i] is not None)
            for i, worker_id in enumerate(ids)
        ]

    async def leader(self) -> str | None:
        """The program that promotes delayed jobs; None if there is none."""
        for lock in (self._keys.ruby_lock, self._keys.node_lock):  # ours holds Node's lock until it expires
            if (name := await _or_nothing(self._redis.get(lock))) and isinstance(name, bytes):
                return _text(name)
        return None

    async def chart(self, minutes: int = 10) -> list[Moment]:
        """The last minutes in steps of ten seconds, the oldest first; the last step is not complete yet."""
        last = int(time.time()) // CHART_SECONDS
        numbers = range(last - minutes * 60 // CHART_SECONDS + 1, last + 1)
        pipeline = self._redis.pipeline(transaction=False)
        for number in numbers:
            pipeline.hgetall(self._keys.chart(number))
        found = await pipeline.execute(raise_on_error=False)
        return [
            _moment(number * CHART_SECONDS, fields if isinstance(fields, dict) else {})
            for number, fields in zip(numbers, found, strict=True)
        ]


async def _or_nothing(answer: Any) -> Any:
    """The answer of Redis; an empty tuple if the key has another type."""
    try:
        return await answer
    except ResponseError as error:
        if "WRONGTYPE" in str(error):
            return ()
        raise


def _age(raw: object, now: float) -> float | None:
    """Seconds since the id of this job was made; None if it cannot be known."""
    if not isinstance(raw, bytes):
        return None
    try:
        return _age_of(read_job(raw), now)
    except BadJob:
        return None


def _age_of(job: Job | None, now: float) -> float | None:
    made = made_at(job.id) if job is not None and job.id else None
    return None if made is None else max(0.0, now - made)


def _worker_state(
    worker_id: str, now: float, working: object, started: object, ping: object, beat: object, *, ours: bool
) -> WorkerState:
    _, _, queues = (*worker_id.split(":", 2), "", "")[:3]
    seen = [moment for moment in (_ping_moment(ping), moment_of(beat)) if moment is not None]
    job, run_at = _working(working)
    return WorkerState(
        worker_id,
        queues,
        _text(started) if isinstance(started, bytes) else "",
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


def _working(record: object) -> tuple[Job | None, float | None]:
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


def moment_of(date: object) -> float | None:
    """Parse a date in any format that Ruby, Node or our code writes. Returns unix seconds; None if it is not a date."""
    text = _text(date) if isinstance(date, bytes) else date
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        return float(text)
    if not isinstance(text, str):
        return None
    if re.fullmatch(r"\d{1,12}", text, re.ASCII):
        return float(text)
    text = re.sub(" (UTC|GMT)$", " +0000", text.strip())
    if found := _JS_DATE.match(text):
        month, day, year, clock, offset = found.groups()
        text = f"{day} {month} {year} {clock} {offset}"
    for form in ("%Y/%m/%d %H:%M:%S %z", "%Y-%m-%d %H:%M:%S %z", "%d %b %Y %H:%M:%S %z"):
        try:
            return datetime.strptime(text, form).timestamp()
        except ValueError:
            continue
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _moment(second: int, fields: dict[bytes, bytes]) -> Moment:
    numbers = _numbers(fields)
    waits = {
        int(name.removeprefix("waited:")): number
        for name, number in numbers.items()
        if re.fullmatch(r"waited:\d{1,3}", name, re.ASCII)
    }
    succeeded, failed, retried = (numbers.get(name, 0) for name in ("succeeded", "failed", "retried"))
    return Moment(second, succeeded, failed, retried, waits)


def _numbers(fields: dict[bytes, bytes]) -> dict[str, int]:
    """The counters whose values are integers in the range of Redis."""
    return {_text(name): int(value) for name, value in fields.items() if value.isdigit() and len(value) < 20}


def _loads(data: object) -> Any:
    try:
        return orjson.loads(data) if isinstance(data, bytes) else None
    except orjson.JSONDecodeError:
        return None


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


__all__ = ["Moment", "Observer", "QueueState", "RedisError", "WorkerState", "moment_of"]
