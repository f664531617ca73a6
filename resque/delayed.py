"""Delayed jobs: page through them by due time, run one now, or remove one."""

from dataclasses import dataclass, replace
from typing import Any

from redis.asyncio import Redis

from .answers import or_empty
from .failed import CannotRequeue, NotThere
from .items import Item, Items
from .keys import Keys
from .queue import Queue
from .wire import BadJob, Job, read_job


@dataclass(frozen=True, slots=True)
class Delayed:
    """A delayed job. `job` is None if it is not a valid job or too large to show."""

    second: int
    item: Item
    job: Job | None
    failures: int = 0
    """How many attempts have failed. How many there may be is known only to the workers."""


@dataclass(frozen=True, slots=True)
class Page:
    jobs: list[Delayed]
    following: tuple[int, int] | None
    """Where the next page begins: the second, and the index in its list."""


class DelayedJobs:
    """Methods raise RedisError when Redis does not answer."""

    def __init__(self, redis: Redis, queue: Queue) -> None:
        self._redis: Any = redis  # its types say that answers may be str
        self._queue = queue
        self._keys: Keys = queue.keys
        self._items = Items(redis, queue.scripts)

    async def page(self, second: int = 0, place: int = 0, count: int = 20) -> Page:
        """At most `count` jobs from there on, by due time. Not by SCAN, because other programs have other keys under
        `delayed:`.
        """
        jobs: list[Delayed] = []
        for due in await self._seconds(second, count + 1):
            start = place if due == second else 0
            items = await self._items.read(self._keys.delayed(due), start, count + 1 - len(jobs))
            jobs += [Delayed(due, item, _read(item)) for item in items]
            if len(jobs) > count:
                return Page(await self._with_failures(jobs[:count]), (due, jobs[count].item.place))
        return Page(await self._with_failures(jobs), None)

    async def _with_failures(self, jobs: list[Delayed]) -> list[Delayed]:
        keys = [delayed.job.key if delayed.job else "" for delayed in jobs]
        if not keys:
            return jobs
        counts = await or_empty(self._redis.hmget(self._keys.attempts, keys), [None] * len(keys))
        return [
            replace(one, failures=int(count)) if (count or b"").isdigit() else one
            for one, count in zip(jobs, counts, strict=True)
        ]

    async def _seconds(self, first: int, count: int) -> list[int]:
        answer = self._redis.zrangebyscore(self._keys.schedule, first, "+inf", start=0, num=count)
        found = await or_empty(answer, [])
        return [int(second) for second in found if second.isdigit() and len(second) <= 15]

    async def run_now(self, second: int, digest: str, near: int) -> Job:
        """Move a job to the end of its queue. Raises NotThere or CannotRequeue."""
        item = await self._find(second, digest, near)
        job = _read(item)
        if job is None or not job.queue:
            raise CannotRequeue("it is not a valid job, or it names no queue")
        if await self._take(second, item, job.queue) < 0:
            raise CannotRequeue(f"the key of the queue {job.queue} is not a list")
        return job

    async def remove(self, second: int, digest: str, near: int) -> None:
        """Remove a job; its id may then be enqueued again. Raises NotThere."""
        item = await self._find(second, digest, near)
        await self._take(second, item, "")
        if job := _read(item):
            await self._queue.forget(job)

    async def _find(self, second: int, digest: str, near: int) -> Item:
        if (item := await self._items.find(self._keys.delayed(second), digest, near)) is None:
            raise NotThere("this job is no longer delayed")
        return item

    async def _take(self, second: int, item: Item, queue: str) -> int:
        keys = self._keys
        names = [keys.delayed(second), _timestamps(keys, item.text), keys.schedule, keys.queues, keys.queue(queue)]
        outcome = int(await self._queue.scripts("take_delayed", names, item.text, second, queue))
        if outcome == 0:
            raise NotThere("this job is no longer delayed")
        return outcome


def _timestamps(keys: Keys, raw: bytes) -> str | bytes:
    """The key for any bytes, even if they are not UTF-8."""
    return keys.timestamps("").encode() + raw


def _read(item: Item) -> Job | None:
    try:
        return read_job(item.text) if item.whole else None
    except BadJob:
        return None
