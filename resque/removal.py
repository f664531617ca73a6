"""Removes jobs that wait or are delayed, and all that Redis remembers of them."""

from collections.abc import AsyncIterator

from redis.asyncio import Redis

from asynckit.bytes_redis import bytes_redis

from .definition import Definitions
from .keys import Keys
from .queues import Queues
from .scripts import Scripts
from .wire import BadJob, Job, digest, read_job

PAGE = 1000  # jobs read at a time when the whole queue is searched


class Removal:
    """What `Queue.cancel`, `Queue.remove` and `Queue.forget` do."""

    def __init__(self, redis: Redis, keys: Keys, scripts: Scripts, definitions: Definitions) -> None:
        self._queues = Queues(redis, keys, scripts)
        self._redis = bytes_redis(redis)
        self._keys = keys
        self._scripts = scripts
        self._definitions = definitions

    async def cancel(self, job_id: str) -> bool:
        """Remove a waiting or delayed job. False: not found, because it is running, has run, or never existed.

        This searches all jobs, so its cost grows with the queues. Delayed jobs are searched first, so a job that is
        promoted during the search is found in its queue.
        """
        async for second, raw in self._delayed():
            if self._is(raw, job_id) and await take_delayed(self._scripts, self._keys, second, raw) > 0:
                await self.forget(*_read(raw, ""))
                return True
        for queue in await self._queues.names():
            async for raw in self._jobs(queue):
                if self._is(raw, job_id) and await self._redis.lrem(self._keys.queue(queue), 1, raw):
                    await self.forget(*_read(raw, queue))
                    return True
        return False

    async def remove(self, queue: str) -> int:
        """Remove a queue and its jobs; returns how many. Their ids may be enqueued again."""
        key = self._keys.queue(queue)
        await self._redis.srem(self._keys.queues, queue)  # first: a job enqueued from now on adds the queue again
        left, removed = await self._redis.llen(key), 0
        while removed < left and (found := await self._redis.lpop(key, min(PAGE, left - removed))):
            removed += len(found)
            await self.forget(*[job for raw in found for job in _read(raw, queue)])
        return removed

    async def forget(self, *jobs: Job) -> None:
        """Delete the ids, counts and locks of removed jobs, so that they may be enqueued again."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for job in jobs:
                pipeline.hdel(self._keys.attempts, job.key).hdel(self._keys.crashes, job.key)
                if job.id:
                    pipeline.srem(self._keys.seen, digest(job.id)).srem(self._keys.seen_before, digest(job.id))
                if lock := self._lock_of(job):
                    pipeline.delete(self._keys.unique(lock))
            await pipeline.execute()

    def _lock_of(self, job: Job) -> str | None:
        definition = self._definitions.get(job.name)
        return definition.lock_or_none(job) if definition else None

    async def _jobs(self, queue: str) -> AsyncIterator[bytes]:
        """All elements of a queue, from the tail: workers that claim at the head meanwhile do not shift the rest."""
        end = -1
        while found := await self._redis.lrange(self._keys.queue(queue), end - PAGE + 1, end):
            for raw in reversed(found):
                yield raw
            end -= len(found)

    async def _delayed(self) -> AsyncIterator[tuple[int, bytes]]:
        """All delayed jobs, the next first. Not by SCAN, because other programs have other keys under `delayed:`. By
        score and not by rank, because jobs that are promoted meanwhile would shift the ranks.
        """
        after = "-inf"
        while found := await self._redis.zrangebyscore(self._keys.schedule, after, "+inf", 0, PAGE, withscores=True):
            after = f"({found[-1][1]!r}"
            for second, _ in found:
                if not second.isdigit():
                    continue
                for raw in await self._redis.lrange(self._keys.delayed(int(second)), 0, -1):
                    yield int(second), raw

    @staticmethod
    def _is(raw: bytes, job_id: str) -> bool:
        if job_id.encode() not in raw:  # cheaper than parsing
            return False
        return any(job.id == job_id for job in _read(raw, ""))


async def take_delayed(scripts: Scripts, keys: Keys, second: int, raw: bytes, queue: str = "") -> int:
    """Move a delayed job to the end of this queue, or remove it if no queue is given.

    Returns 1; 0 if the job is no longer delayed, and -1 if the key of the queue is not a list.
    """
    timestamps = keys.timestamps("").encode() + raw  # any bytes, even if they are not UTF-8
    names: list[str | bytes] = [keys.delayed(second), timestamps, keys.schedule, keys.queues, keys.queue(queue)]
    return int(await scripts("take_delayed", names, raw, second, queue))


def _read(raw: bytes, queue: str) -> list[Job]:
    """The job; none if it is invalid."""
    try:
        return [read_job(raw, queue)]
    except BadJob:
        return []
