"""The producer's side: enqueue, plan, look, pause, cancel."""

import math
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, NamedTuple

import orjson
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from asynckit.batcher import Batcher

from .definition import Definition, Definitions
from .keys import Keys
from .scripts import Scripts
from .wire import BadJob, Job, digest, make_job, read_job

REMEMBER_SECONDS = 3600  # at least so long an id that was enqueued is known
PAGE = 1000  # jobs read at a time when all are looked through


class _Order(NamedTuple):
    """A job on its way into Redis, now or at `second`."""

    job: Job
    second: int
    lock: str | None = None
    lock_ms: int = 0


class Queue:
    """All queues of a namespace, for whoever fills them and looks after them.

    `definitions` are only needed for plug-ins and for unique jobs. Methods raise RedisError when Redis did not answer;
    then a job that has an id may be enqueued again without fear, for at least an hour.
    """

    def __init__(
        self,
        redis: Redis,
        namespace: str = "resque",
        definitions: Definitions | None = None,
        ack_replicas: int = 0,
    ) -> None:
        """With `ack_replicas`, an enqueued job has reached so many replicas; else TooFewReplicas is raised."""
        self.redis: Any = redis  # its types do not know that answers are bytes here
        self.keys = Keys(namespace)
        self.scripts = Scripts(redis, ack_replicas, self.keys.written)
        self._definitions = definitions or {}
        self._enqueue: Batcher[_Order, bool] = Batcher(self._enqueue_many)

    def enqueue(self, queue: str, name: str, args: Sequence[Any] = (), job_id: str | None = None) -> Awaitable[bool]:
        """Put a job at the end of a queue: it is in Redis when this has been awaited.

        `args` must be JSON; if the first is an object it carries the id, `job_id` or a new one. False: a job with this
        id was enqueued already, or one of its kind waits that must be unique, or a plug-in said no. Raises BadJob.
        """
        return self._put(make_job(queue, name, args, job_id), 0)

    def enqueue_at(
        self, moment: float, queue: str, name: str, args: Sequence[Any] = (), job_id: str | None = None
    ) -> Awaitable[bool]:
        """The same at a moment in unix seconds, rounded up to a whole one. A moment that has passed means at once."""
        second = math.ceil(moment) if moment > time.time() else 0
        return self._put(make_job(queue, name, args, job_id), second)

    def enqueue_in(
        self, seconds: float, queue: str, name: str, args: Sequence[Any] = (), job_id: str | None = None
    ) -> Awaitable[bool]:
        """The same in so many seconds."""
        return self.enqueue_at(time.time() + seconds, queue, name, args, job_id)

    def _put(self, job: Job, second: int) -> Awaitable[bool]:
        definition = self._definitions.get(job.name)
        if definition is None:
            return self._enqueue(_Order(job, second))
        return self._put_defined(job, second, definition)

    async def _put_defined(self, job: Job, second: int, definition: Definition) -> bool:
        for plugin in definition.plugins:
            if not await plugin.before_enqueue(job):
                return False
        order = _Order(job, second, definition.lock(job), int(definition.unique_seconds * 1000))
        if not await self._enqueue(order):
            return False
        for plugin in definition.plugins:
            await plugin.after_enqueue(job)
        return True

    async def _enqueue_many(self, orders: Sequence[_Order]) -> Sequence[bool | Exception]:
        keys = {key: number for number, key in enumerate(self._first_keys, 1)}
        names = {order.job.queue: None for order in orders if not order.second}
        # As one argument of JSON: a hundred arguments would take redis-py longer than the rest of the call.
        jobs = orjson.dumps([self._as_arguments(order, keys) for order in orders])
        results = await self.scripts("enqueue", list(keys), REMEMBER_SECONDS * 1000, orjson.dumps(list(names)), jobs)
        return [result == 1 if isinstance(result, int) else ResponseError(_text(result)) for result in results]

    def _as_arguments(self, order: _Order, keys: dict[str, int]) -> tuple[str | int, ...]:
        """What enqueue.lua gets for it; adds the keys that it names to `keys`."""
        job, second, lock, lock_ms = order

        def number(key: str) -> int:
            return keys.setdefault(key, len(keys) + 1)

        job_id = job.id
        first = (job.raw, digest(job_id) if job_id else "")
        if not second and not lock:
            return *first, number(self.keys.queue(job.queue))
        place = self.keys.delayed(second) if second else self.keys.queue(job.queue)
        timestamps = number(self.keys.timestamps(job.raw)) if second else 0
        unique = number(self.keys.unique(lock)) if lock else 0
        return *first, number(place), second, timestamps, unique, job.key, lock_ms

    @property
    def _first_keys(self) -> tuple[str, ...]:
        return self.keys.queues, self.keys.seen, self.keys.seen_before, self.keys.schedule

    async def declare(self, queue: str) -> None:
        """Let a queue be known before anything is in it."""
        await self.redis.sadd(self.keys.queues, queue)

    async def names(self) -> list[str]:
        """The queues that there are, also empty ones."""
        return sorted(_text(name) for name in await self.redis.smembers(self.keys.queues))

    async def length(self, queue: str) -> int:
        return int(await self.redis.llen(self.keys.queue(queue)))

    async def peek(self, queue: str, start: int = 0, count: int = 20) -> list[Job | bytes]:
        """Jobs as they wait, the oldest first; what is no job comes as it is."""
        found = await self.redis.lrange(self.keys.queue(queue), start, start + count - 1)
        return [_read(raw, queue) for raw in found]

    async def delayed(self, start: int = 0, count: int = 20) -> list[tuple[int, Job | bytes]]:
        """Delayed jobs and when they are due (unix seconds), the next first; `start` counts jobs."""
        found: list[tuple[int, Job | bytes]] = []
        async for second, raw in self._all_delayed():
            if start > 0:
                start -= 1
            elif len(found) < count:
                found.append((second, _read(raw, "")))
            else:
                break
        return found

    async def cancel(self, job_id: str) -> bool:
        """Remove a job that waits or is planned. False: it is not there, because it runs, has run, or never was.

        Looks through all that waits, so its cost grows with the queues. The delayed come first, as a job goes: what is
        promoted meanwhile is met in its queue.
        """
        async for second, raw in self._all_delayed():
            if self._is(raw, job_id) and await self._remove_delayed(second, raw):
                await self.forget(_read(raw, ""))
                return True
        for queue in await self.names():
            async for raw in self._all(queue):
                if self._is(raw, job_id) and await self.redis.lrem(self.keys.queue(queue), 1, raw):
                    await self.forget(_read(raw, queue))
                    return True
        return False

    async def remove(self, queue: str) -> int:
        """Remove a queue and all that waits in it; how many that was. All of it may be enqueued again."""
        key = self.keys.queue(queue)
        await self.redis.srem(self.keys.queues, queue)  # first: what is enqueued from now on makes it known again
        left, removed = await self.redis.llen(key), 0
        while removed < left and (found := await self.redis.lpop(key, min(PAGE, left - removed))):
            removed += len(found)
            await self.forget(*(_read(raw, queue) for raw in found))
        return removed

    async def pause(self, queue: str, reason: str, seconds: float | None) -> None:
        """Let no worker of ours take jobs from this queue for that many seconds, unless it is called again.

        None: until it is resumed; a pause for a time does not shorten such a one. Workers of Ruby and Node do not know
        this pause and go on; `pause-all-workers` stops Ruby's.
        """
        milliseconds = 0 if seconds is None else max(1, int(seconds * 1000))
        await self.scripts("pause", [self.keys.paused(queue)], reason, milliseconds)

    async def resume(self, queue: str, *, only_timed: bool = False) -> None:
        """Let workers take jobs again; with `only_timed` not if the pause has no end: an operator has begun it."""
        await self.scripts("resume", [self.keys.paused(queue)], int(only_timed))

    async def paused(self, queue: str) -> str | None:
        """Why nobody takes jobs from it; None when they do."""
        if _text(await self.redis.get(self.keys.pause_all) or b"").lower() == "true":
            return "pause-all-workers is set"
        reason = await self.redis.get(self.keys.paused(queue))
        return None if reason is None else _text(reason)

    async def forget(self, *jobs: Job | bytes) -> None:
        """What is cancelled may be enqueued again, and another of its kind too."""
        async with self.redis.pipeline(transaction=False) as pipeline:
            for job in jobs:
                if not isinstance(job, Job):
                    continue
                pipeline.hdel(self.keys.attempts, job.key).hdel(self.keys.crashes, job.key)
                if job.id:
                    pipeline.srem(self.keys.seen, digest(job.id)).srem(self.keys.seen_before, digest(job.id))
                if lock := self._lock_of(job):
                    pipeline.delete(self.keys.unique(lock))
            await pipeline.execute()

    def _lock_of(self, job: Job) -> str | None:
        definition = self._definitions.get(job.name)
        try:
            return definition.lock(job) if definition else None
        except Exception:  # arguments that its kind cannot be made of: somebody else has enqueued it, and took no lock
            return None

    async def _all(self, queue: str) -> AsyncIterator[bytes]:
        """What is in a queue, from the tail: what workers take meanwhile at the head moves nothing past us."""
        end = -1
        while found := await self.redis.lrange(self.keys.queue(queue), end - PAGE + 1, end):
            for raw in reversed(found):
                yield raw
            end -= len(found)

    async def _all_delayed(self) -> AsyncIterator[tuple[int, bytes]]:
        """All that is planned, the next first. Never by SCAN: foreign programs keep other things under `delayed:`. From
        one second to the next and not by rank: what is promoted meanwhile would move others past us.
        """
        after = "-inf"
        while found := await self.redis.zrangebyscore(self.keys.schedule, after, "+inf", 0, PAGE, withscores=True):
            after = f"({found[-1][1]!r}"
            for second, _ in found:
                if not second.isdigit():
                    continue
                for raw in await self.redis.lrange(self.keys.delayed(int(second)), 0, -1):
                    yield int(second), raw

    async def _remove_delayed(self, second: int, raw: bytes) -> bool:
        keys, queue = self.keys, ""  # to no queue: away
        names = [keys.delayed(second), keys.timestamps(_text(raw)), keys.schedule, keys.queues, keys.queue(queue)]
        return bool(await self.scripts("take_delayed", names, raw, second, queue))

    @staticmethod
    def _is(raw: bytes, job_id: str) -> bool:
        if job_id.encode() not in raw:  # before any parsing
            return False
        job = _read(raw, "")
        return isinstance(job, Job) and job.id == job_id


def _read(raw: bytes, queue: str) -> Job | bytes:
    try:
        return read_job(raw, queue)
    except BadJob:
        return raw


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
