"""Reads the state of the queues: lengths and waiting times, workers and their jobs, counters, the last minutes.

It only reads, and it accepts whatever another program may have written into a key: a value that cannot be read is
reported as unknown or left out, and never raises an error. Whether a worker is alive follows from the age of its last
heartbeat at the time of reading.
"""

import time
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from .answers import or_empty, redis_time
from .keys import CHART_SECONDS, Keys
from .states import (
    Moment,
    QueueState,
    WorkerState,
    age_of,
    age_of_raw,
    integers,
    moment_from,
    text_of,
    worker_state,
    working_job,
)

OVERDUE_SECONDS = 15.0  # three polls of another program's leader: a delayed job that is due for longer is overdue
MOST_SECONDS = 1000  # at most this many different seconds of delayed jobs are counted


class Observer:
    """Methods raise RedisError when Redis does not answer."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis: Any = redis  # its types say that answers may be str
        self._keys = keys

    async def now(self) -> float:
        """Unix seconds by Redis's clock."""
        return await redis_time(self._redis)

    async def names(self) -> list[str]:
        """The names of all queues."""
        return sorted(text_of(name) for name in await or_empty(self._redis.smembers(self._keys.queues), set()))

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
            reason = text_of(paused) if isinstance(paused, bytes) else None
            reason = "pause-all-workers is set" if all_paused else reason
            length = length if isinstance(length, int) else None
            states.append(QueueState(name, length, age_of_raw(head, now), reason))
        return states

    async def delayed(self) -> tuple[int, bool]:
        """How many jobs are delayed; and True if there are more, due at more than MOST_SECONDS different seconds."""
        seconds = await or_empty(self._redis.zrange(self._keys.schedule, 0, MOST_SECONDS), [])
        pipeline = self._redis.pipeline(transaction=False)
        for second in seconds[:MOST_SECONDS]:
            pipeline.llen(self._keys.key("delayed", text_of(second)))
        lengths = await pipeline.execute(raise_on_error=False)
        return sum(length for length in lengths if isinstance(length, int)), len(seconds) > MOST_SECONDS

    async def next_delayed(self) -> float | None:
        """Seconds until the next delayed job is due; None if no job is delayed."""
        found = await or_empty(self._redis.zrange(self._keys.schedule, 0, 0), [])
        return max(0.0, float(found[0]) - await self.now()) if found and found[0].isdigit() else None

    async def overdue(self) -> tuple[int, float]:
        """How many delayed jobs should already have been promoted, and for how many seconds the oldest has been due.

        At most MOST_SECONDS different seconds are read, as in `delayed`.
        """
        limit = await self.now() - OVERDUE_SECONDS
        seconds = await or_empty(
            self._redis.zrange(self._keys.schedule, "-inf", limit, byscore=True, offset=0, num=MOST_SECONDS), []
        )
        pipeline = self._redis.pipeline(transaction=False)
        for second in seconds:
            pipeline.llen(self._keys.key("delayed", text_of(second)))
        lengths = [length for length in await pipeline.execute(raise_on_error=False) if isinstance(length, int)]
        oldest = float(seconds[0]) if seconds and seconds[0].isdigit() else limit
        return sum(lengths), limit + OVERDUE_SECONDS - oldest if sum(lengths) else 0.0

    async def oldest_elsewhere(self) -> float | None:
        """The age (seconds) of the oldest job that is in flight or delayed; None if no id holds a time.

        Of the jobs that are delayed until the same second, only the first is read.
        """
        members = await or_empty(self._redis.smembers(self._keys.workers), set())
        seconds = await or_empty(self._redis.zrange(self._keys.schedule, 0, MOST_SECONDS - 1), [])
        pipeline = self._redis.pipeline(transaction=False)
        for member in members:
            pipeline.get(self._keys.worker(text_of(member)))
        for second in seconds:
            pipeline.lindex(self._keys.key("delayed", text_of(second)), 0)
        found = await pipeline.execute(raise_on_error=False)
        jobs = [working_job(record)[0] for record in found[: len(members)]]
        now = time.time()
        ages = [age_of(job, now) for job in jobs] + [age_of_raw(raw, now) for raw in found[len(members) :]]
        return max((age for age in ages if age is not None), default=None)

    async def failed(self) -> int:
        """The length of the failed list."""
        return int(await or_empty(self._redis.llen(self._keys.failed), 0))

    async def failed_elsewhere(self) -> dict[str, int]:
        """The lists of Ruby's RedisMultiQueue, one for each queue, with the number of failures in each."""
        found = await or_empty(self._redis.smembers(self._keys.failed_queues), set())
        names = sorted(text_of(name) for name in found)
        pipeline = self._redis.pipeline(transaction=False)
        for name in names:
            pipeline.llen(self._keys.key(name))
        lengths = await pipeline.execute(raise_on_error=False)
        return {name: length for name, length in zip(names, lengths, strict=True) if isinstance(length, int) and length}

    async def totals(self) -> dict[str, int]:
        """Counters of our workers since the beginning: succeeded, failed, retried, crashed, late."""
        found = await or_empty(self._redis.hgetall(self._keys.totals), {})
        totals = dict.fromkeys(("succeeded", "failed", "retried", "crashed", "late"), 0)
        return totals | integers(dict(found))

    async def in_flight(self) -> int:
        """How many jobs are in flight, in workers of any language."""
        members = await or_empty(self._redis.smembers(self._keys.workers), set())
        names = [self._keys.worker(text_of(member)) for member in members]
        return int(await self._redis.exists(*names)) if names else 0

    async def processes(self) -> int:
        """How many worker processes are registered; all slots of a process count as one."""
        members = await or_empty(self._redis.smembers(self._keys.workers), set())
        return len({text_of(member).split("+", 1)[0] if b"+" in member else text_of(member) for member in members})

    async def workers(self, most: int | None = None) -> list[WorkerState]:
        """All registered workers, or at most `most` of them."""
        keys = self._keys
        ids = sorted(text_of(member) for member in await or_empty(self._redis.smembers(keys.workers), set()))[:most]
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
            worker_state(worker_id, now, working[i], started[i], pings[i], beats[i], ours=leases[i] is not None)
            for i, worker_id in enumerate(ids)
        ]

    async def leader(self) -> str | None:
        """The program that promotes delayed jobs; None if there is none."""
        for lock in (self._keys.ruby_lock, self._keys.node_lock):  # ours holds Node's lock until it expires
            if (name := await or_empty(self._redis.get(lock), None)) and isinstance(name, bytes):
                return text_of(name)
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
            moment_from(number * CHART_SECONDS, fields if isinstance(fields, dict) else {})
            for number, fields in zip(numbers, found, strict=True)
        ]
