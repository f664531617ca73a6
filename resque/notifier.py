"""Waking idle workers at once, whoever has enqueued the job, and asking nobody in between.

`BLMOVE list list LEFT LEFT` waits until a list has something in it and then moves its head to its head: nothing
changes, and nothing can get lost if the answer does. (Waiting with BLPOP would take the job out of Redis before anybody
holds it.) Each queue has a connection of its own that waits, because BLMOVE waits for one list.
"""

import asyncio
import logging
from collections.abc import Iterable
from functools import partial
from typing import Self

from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, RedisError

from asynckit.backoff import backoff_seconds
from asynckit.log_limit import REDIS, OncePerSecond
from asynckit.redis_client import describe
from asynckit.tasks import end_tasks, keep_running

from .keys import Keys

WAIT_SECONDS = 1.0  # at a time; a dead connection is noticed after the client's limit, which must be longer
PAUSE_CAP_SECONDS = 0.5

log = logging.getLogger(__name__)


class Notifier:
    """Sets `rang` when a queue that is listened to has something in it."""

    def __init__(self, waiting_redis: Redis, keys: Keys, queues: Iterable[str], rang: asyncio.Event) -> None:
        """`waiting_redis` must allow an answer more than WAIT_SECONDS."""
        self._rang = rang
        self._redis = waiting_redis
        self._keys = keys
        self._listening = {queue: asyncio.Event() for queue in queues}
        self._tasks: list[asyncio.Task[None]] = []
        self._log = OncePerSecond(log, REDIS)

    async def __aenter__(self) -> Self:
        self._tasks = [
            keep_running(partial(self._attend, queue), f"waiting for jobs in {queue!r}") for queue in self._listening
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        await end_tasks(self._tasks)

    def listen(self, queues: Iterable[str]) -> None:
        """Ring when one of these has something in it; each once."""
        for queue in queues:
            self._listening[queue].set()

    async def _attend(self, queue: str) -> None:
        key, listening, failures = self._keys.queue(queue), self._listening[queue], 0
        while True:
            await listening.wait()
            try:
                if await self._redis.blmove(key, key, WAIT_SECONDS, "LEFT", "LEFT") is not None:  # type: ignore[arg-type]
                    listening.clear()
                    self._rang.set()
                failures = 0
            except RedisError as error:  # also a key that is no list
                failures += 1
                self._log.warning("cannot wait for jobs in %s: %s", queue, describe(error))
                await asyncio.sleep(backoff_seconds(failures, base=0.05, cap=PAUSE_CAP_SECONDS))
                if isinstance(error, OutOfMemoryError):  # a full Redis takes no BLMOVE, but it still hands jobs out
                    listening.clear()
                    self._rang.set()
