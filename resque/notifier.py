"""Wakes idle workers as soon as any program has enqueued a job, without polling.

`BLMOVE list list LEFT LEFT` waits until a list has an element and then moves its head to its own head: the list stays
the same, and no job is lost if the answer is. (BLPOP would remove the job from Redis before a worker has claimed it.)
BLMOVE waits for one list, so each of the first MOST_WAITING queues has its own waiting connection. All others share one
(watcher.py).
"""

import asyncio
import logging
from collections.abc import Iterable
from functools import partial
from typing import Self

from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from asynckit.backoff import backoff_seconds
from asynckit.log_limit import REDIS, OncePerSecond
from asynckit.redis_client import CALL_ERRORS, describe
from asynckit.tasks import end_tasks, keep_running

from .keys import Keys
from .watcher import Watcher

WAIT_SECONDS = 1.0  # of one BLMOVE; the client's answer limit, which detects a dead connection, must be longer
MOST_WAITING = 8  # connections
PAUSE_CAP_SECONDS = 0.5

log = logging.getLogger(__name__)


class Notifier:
    """Sets `wake` when one of the queues it waits for has a job."""

    def __init__(self, waiting_redis: Redis, keys: Keys, queues: Iterable[str], wake: asyncio.Event) -> None:
        """`waiting_redis` must wait longer than WAIT_SECONDS for an answer."""
        self._wake = wake
        self._redis = waiting_redis
        self._keys = keys
        names = list(queues)
        self._listening = {queue: asyncio.Event() for queue in names[:MOST_WAITING]}
        others = names[MOST_WAITING:]
        self._watcher = Watcher(waiting_redis, keys, others, wake) if others else None
        self._tasks: list[asyncio.Task[None]] = []
        self._log = OncePerSecond(log, REDIS)

    async def __aenter__(self) -> Self:
        self._tasks = [
            keep_running(partial(self._wait_for, queue), f"waiting for jobs in {queue!r}") for queue in self._listening
        ]
        if self._watcher:
            self._tasks.append(keep_running(self._watcher.run, "waiting for jobs in the other queues"))
        return self

    async def __aexit__(self, *_: object) -> None:
        await end_tasks(self._tasks)

    def listen(self, queues: Iterable[str]) -> None:
        """Set `wake` when one of these has a job; once for each queue."""
        others = []
        for queue in queues:
            if queue in self._listening:
                self._listening[queue].set()
            else:
                others.append(queue)
        if self._watcher:
            self._watcher.watch(others)

    async def _wait_for(self, queue: str) -> None:
        key, listening, failures = self._keys.queue(queue), self._listening[queue], 0
        while True:
            await listening.wait()
            try:
                if await self._redis.blmove(key, key, WAIT_SECONDS, "LEFT", "LEFT") is not None:  # type: ignore[arg-type]
                    listening.clear()
                    self._wake.set()
                failures = 0
            except CALL_ERRORS as error:  # also if the key is not a list
                failures += 1
                self._log.warning("cannot wait for jobs in %s: %s", queue, describe(error))
                await asyncio.sleep(backoff_seconds(failures, base=0.05, cap=PAUSE_CAP_SECONDS))
                if isinstance(error, OutOfMemoryError):  # a full Redis refuses BLMOVE, but a claim still works
                    listening.clear()
                    self._wake.set()
