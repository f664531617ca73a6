"""Reads the queues: their names, lengths and jobs. Any program may have written any of these keys."""

import time
from collections.abc import Sequence

from redis.asyncio import Redis

from asynckit.bytes_redis import bytes_redis

from .answers import or_empty
from .items import Item, Items
from .keys import Keys
from .scripts import Scripts
from .states import QueueState, age_of_raw, text_of


class Queues:
    """Methods raise RedisError when Redis does not answer."""

    def __init__(self, redis: Redis, keys: Keys, scripts: Scripts | None = None) -> None:
        self._redis = bytes_redis(redis)
        self._keys = keys
        self._items = Items(redis, scripts or Scripts(redis))

    async def names(self) -> list[str]:
        """The names of all queues."""
        return sorted(text_of(name) for name in await or_empty(self._redis.smembers(self._keys.queues), set[bytes]()))

    async def states(self, names: Sequence[str]) -> list[QueueState]:
        """How long these queues are, how long their oldest jobs have waited, and why they are paused."""
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

    async def jobs(self, name: str, start: int = 0, count: int = 20) -> list[Item]:
        """At most `count` waiting jobs, the oldest first; skips `start` jobs. `Item.job` reads one."""
        return await self._items.read(self._keys.queue(name), start, count)
