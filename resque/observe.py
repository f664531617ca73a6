"""Reads the workers and their jobs, the counters, and the chart of the last minutes.

It only reads, and it accepts whatever another program may have written into a key: a value that cannot be read is
reported as unknown or left out, and never raises an error. Whether a worker is alive follows from the age of its last
heartbeat at the time of reading.
"""

import time

from redis.asyncio import Redis

from asynckit.bytes_redis import bytes_redis, redis_time

from .answers import or_empty
from .keys import CHART_SECONDS, Keys
from .states import (
    Moment,
    WorkerState,
    age_of,
    age_of_raw,
    integers,
    moment_from,
    text_of,
    worker_state,
    working_job,
)

MOST_SECONDS = 1000  # at most this many different seconds of delayed jobs are counted


class Observer:
    """Methods raise RedisError when Redis does not answer."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = bytes_redis(redis)
        self._keys = keys

    async def now(self) -> float:
        """Unix seconds by Redis's clock."""
        return await redis_time(self._redis)

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
