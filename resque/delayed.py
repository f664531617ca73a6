"""Delayed jobs: count them, page through them by due time, run one now, or remove one."""

from dataclasses import dataclass, replace

from asynckit.bytes_redis import redis_time

from .answers import or_empty
from .failed import CannotRequeue, NotThere
from .items import Item, Items
from .queue import Queue
from .removal import take_delayed
from .states import text_of
from .wire import BadJob, Job

OVERDUE_SECONDS = 15.0  # three polls of another program's leader: a delayed job that is due for longer is overdue
MOST_SECONDS = 1000  # at most this many different seconds of delayed jobs are counted


@dataclass(frozen=True, slots=True)
class Delayed:
    """A delayed job. `job` is None if it is not a valid job or too large to show."""

    second: int
    item: Item
    job: Job | None
    failures: int = 0
    """How many attempts have failed. Only the workers know the limit."""


@dataclass(frozen=True, slots=True)
class Page:
    jobs: list[Delayed]
    following: tuple[int, int] | None
    """Where the next page begins: the second, and the index in its list."""


class DelayedJobs:
    """Methods raise RedisError when Redis does not answer."""

    def __init__(self, queue: Queue) -> None:
        self._redis = queue.redis
        self._queue = queue
        self._keys = queue.keys
        self._items = Items(queue.client, queue.scripts)

    async def count(self) -> tuple[int, bool]:
        """How many jobs are delayed; and True if there are more, due at more than MOST_SECONDS different seconds."""
        seconds = await or_empty(self._redis.zrange(self._keys.schedule, 0, MOST_SECONDS), [])
        pipeline = self._redis.pipeline(transaction=False)
        for second in seconds[:MOST_SECONDS]:
            pipeline.llen(self._keys.key("delayed", text_of(second)))
        lengths = await pipeline.execute(raise_on_error=False)
        return sum(length for length in lengths if isinstance(length, int)), len(seconds) > MOST_SECONDS

    async def next_in(self) -> float | None:
        """Seconds until the next delayed job is due; None if no job is delayed."""
        found = await or_empty(self._redis.zrange(self._keys.schedule, 0, 0), [])
        return max(0.0, float(found[0]) - await redis_time(self._redis)) if found and found[0].isdigit() else None

    async def overdue(self) -> tuple[int, float]:
        """How many delayed jobs should already have been promoted, and for how many seconds the oldest has been due.

        At most MOST_SECONDS different seconds are read, as in `count`.
        """
        limit = await redis_time(self._redis) - OVERDUE_SECONDS
        seconds = await or_empty(
            self._redis.zrange(self._keys.schedule, "-inf", limit, byscore=True, offset=0, num=MOST_SECONDS), []
        )
        pipeline = self._redis.pipeline(transaction=False)
        for second in seconds:
            pipeline.llen(self._keys.key("delayed", text_of(second)))
        lengths = [length for length in await pipeline.execute(raise_on_error=False) if isinstance(length, int)]
        oldest = float(seconds[0]) if seconds and seconds[0].isdigit() else limit
        return sum(lengths), limit + OVERDUE_SECONDS - oldest if sum(lengths) else 0.0

    async def page(self, second: int = 0, place: int = 0, count: int = 20) -> Page:
        """At most `count` jobs by due time, beginning at this place in the list of this second.

        It does not use SCAN, because other programs have other keys under `delayed:`.
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
        none: list[bytes | None] = [None] * len(keys)
        counts = await or_empty(self._redis.hmget(self._keys.attempts, keys), none)
        return [
            replace(one, failures=int(count)) if count is not None and count.isdigit() else one
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
        outcome = await take_delayed(self._queue.scripts, self._keys, second, item.text, queue)
        if outcome == 0:
            raise NotThere("this job is no longer delayed")
        return outcome


def _read(item: Item) -> Job | None:
    try:
        return item.job()
    except BadJob:
        return None
