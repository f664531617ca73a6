"""The producer's side: enqueue, delay and remove jobs, and pause queues. To read a queue, see queues.py."""

import math
import time
from collections.abc import Awaitable, Sequence
from typing import Any, NamedTuple

import orjson
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from asynckit.batcher import Batcher
from asynckit.bytes_redis import bytes_redis

from .definition import Definition, Definitions
from .keys import Keys
from .removal import Removal
from .scripts import Scripts
from .wire import Job, digest, make_job

REMEMBER_SECONDS = 3600  # the id of an enqueued job is remembered for at least this long


class _Order(NamedTuple):
    """A job to be enqueued, now or at `second`."""

    job: Job
    second: int
    lock: str | None = None
    lock_ms: int = 0


class Queue:
    """All queues of a namespace, for producers and operators.

    `definitions` are only needed for plug-ins and unique jobs. Methods raise RedisError when Redis did not answer; for
    at least an hour you can then safely enqueue a job with the same id again.
    """

    def __init__(
        self,
        redis: Redis,
        namespace: str = "resque",
        definitions: Definitions | None = None,
        ack_replicas: int = 0,
    ) -> None:
        """With `ack_replicas`, `enqueue` returns when this number of replicas has the job, or raises TooFewReplicas."""
        self.client = redis
        self.redis = bytes_redis(redis)
        self.keys = Keys(namespace)
        self.scripts = Scripts(redis, ack_replicas, self.keys.written)
        self._definitions = definitions or {}
        self._removal = Removal(redis, self.keys, self.scripts, self._definitions)
        self._enqueue: Batcher[_Order, bool] = Batcher(self._enqueue_many)

    def enqueue(self, queue: str, name: str, args: Sequence[Any] = (), job_id: str | None = None) -> Awaitable[bool]:
        """Put a job at the end of a queue. When you have awaited the result, the job is in Redis.

        `args` must be JSON; if the first is an object, it gets the id: `job_id` or a new one. False: this id was
        already enqueued, another unique job holds the lock, or a plug-in refused the job. Raises BadJob.
        """
        return self._put(make_job(queue, name, args, job_id), 0)

    def enqueue_at(
        self, moment: float, queue: str, name: str, args: Sequence[Any] = (), job_id: str | None = None
    ) -> Awaitable[bool]:
        """Enqueue a job at a time in unix seconds, rounded up to a whole second; at once if the time has passed."""
        second = math.ceil(moment) if moment > time.time() else 0
        return self._put(make_job(queue, name, args, job_id), second)

    def enqueue_in(
        self, seconds: float, queue: str, name: str, args: Sequence[Any] = (), job_id: str | None = None
    ) -> Awaitable[bool]:
        """Enqueue a job that is due in `seconds`: this process calculates the time, and Redis uses its own clock."""
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
        # One JSON argument: packing a hundred arguments would take redis-py longer than the rest of the call.
        jobs = orjson.dumps([self._as_arguments(order, keys) for order in orders])
        results = await self.scripts("enqueue", list(keys), REMEMBER_SECONDS * 1000, orjson.dumps(list(names)), jobs)
        return [result == 1 if isinstance(result, int) else ResponseError(_text(result)) for result in results]

    def _as_arguments(self, order: _Order, keys: dict[str, int]) -> tuple[str | int, ...]:
        """The job as enqueue.lua expects it; adds the keys that it refers to to `keys`."""
        job, second, lock, lock_ms = order
        job_id = job.id
        first = (job.raw, digest(job_id) if job_id else "")
        if not second and not lock:
            return *first, keys.setdefault(self.keys.queue(job.queue), len(keys) + 1)

        def number(key: str) -> int:
            return keys.setdefault(key, len(keys) + 1)

        place = self.keys.delayed(second) if second else self.keys.queue(job.queue)
        timestamps = number(self.keys.timestamps(job.raw)) if second else 0
        unique = number(self.keys.unique(lock)) if lock else 0
        return *first, number(place), second, timestamps, unique, job.key, lock_ms

    @property
    def _first_keys(self) -> tuple[str, ...]:
        return self.keys.queues, self.keys.seen, self.keys.seen_before, self.keys.schedule

    async def declare(self, queue: str) -> None:
        """Add a queue to the list of queues before it has any job."""
        await self.redis.sadd(self.keys.queues, queue)

    async def cancel(self, job_id: str) -> bool:
        """Remove a waiting or delayed job. False: not found, because it is running, has run, or never existed.

        This searches all jobs, so its cost grows with the queues.
        """
        return await self._removal.cancel(job_id)

    async def remove(self, queue: str) -> int:
        """Remove a queue and its jobs; returns how many. Their ids may be enqueued again."""
        return await self._removal.remove(queue)

    async def forget(self, *jobs: Job) -> None:
        """Delete the ids, counts and locks of removed jobs, so that they may be enqueued again."""
        await self._removal.forget(*jobs)

    async def pause(self, queue: str, reason: str, seconds: float | None) -> None:
        """Stop our workers from claiming jobs of this queue for `seconds`; a second call sets a new time.

        None: until it is resumed; a timed pause does not replace such a pause. Workers of Ruby and Node ignore this
        pause; `pause-all-workers` stops Ruby's.
        """
        milliseconds = 0 if seconds is None else max(1, int(seconds * 1000))
        await self.scripts("pause", [self.keys.paused(queue)], reason, milliseconds)

    async def resume(self, queue: str, *, only_timed: bool = False) -> None:
        """Let workers claim jobs again. `only_timed`: keep a pause without a limit, because an operator set it."""
        await self.scripts("resume", [self.keys.paused(queue)], int(only_timed))


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
