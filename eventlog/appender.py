"""The producer's side of the partitions: find the open partition, follow the seals, append."""

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from asynckit.bytes_redis import BytesRedis, bytes_redis

from .events import Event
from .keys import PARTITIONS, key, keys, numbers
from .scripts import Scripts

REMEMBER_SECONDS = 60  # a repeated append finds its id for at least this long
TOMBSTONE_SECONDS = 86_400  # how long the seal of a trimmed partition is kept
TRIES = 100  # each seal on the way to the open partition takes one, and so does a Redis that was emptied


class Appender:
    """Remembers the last known open partition. If that is sealed, its seal leads to the next one."""

    def __init__(self, redis: Redis, scripts: Scripts, partition_ms: int, partition_events: int) -> None:
        self._redis = bytes_redis(redis)
        self._scripts = scripts
        self._limits = (partition_ms, partition_events, REMEMBER_SECONDS)
        self._open: int | None = None
        self._sealed: list[int] = []  # the partitions before it whose ids may still be remembered

    async def append(self, items: Sequence[tuple[Event, bool]]) -> list[str]:
        """Return the position of each event. True: the id is certainly new. Raises RedisError."""
        words = [word for event, _ in items for word in (event.id, event.to_json())]
        old = [event.id for event, new in items if not new]
        known: dict[str, str] = {}
        searched: set[int] = set()
        for _ in range(TRIES):
            number, sealed = (self._open, self._sealed) if self._open is not None else await self._find()
            if old:
                known |= await self._search([n for n in sealed if n not in searched], old)
                searched.update(sealed)
                # An event that a sealed partition has must not be appended again: the open partition lacks its id.
                words = [word for e, _ in items if e.id not in known for word in (e.id, e.to_json())]
            what, *rest = await self._append_to(number, words)
            if what == b"appended":
                positions = [f"{number}-{index}" for index in rest]
                if not known:
                    return positions
                places = iter(positions)
                return [known[event.id] if event.id in known else next(places) for event, _ in items]
            self._open = None
            if what == b"sealed":
                await self._follow(*rest)
            else:  # missing: its tombstone has expired, or Redis was emptied
                await self._redis.zrem(PARTITIONS, number)
        raise RedisError(f"could not append: the open partition has changed {TRIES} times")

    async def _append_to(self, number: int, words: Sequence[str | bytes]) -> Any:
        of_one = keys(number, "partitions", "state", "ids", "counters")
        return await self._scripts.run_acknowledged("append", of_one, number, *self._limits, *words)

    async def _search(self, sealed: Sequence[int], ids: Sequence[str]) -> dict[str, str]:
        """The positions of these ids in sealed partitions, which get no new ids."""
        if not sealed:
            return {}
        pipeline = self._redis.pipeline(transaction=False)
        for number in sealed:
            pipeline.hmget(key(number, "ids"), ids)
        found: dict[str, str] = {}
        for number, indexes in zip(sealed, await pipeline.execute(), strict=True):
            here = {i: f"{number}-{int(index)}" for i, index in zip(ids, indexes, strict=True) if index is not None}
            if here:  # the partition may be on another node than the open one
                await self._scripts.acknowledge(key(number, "ids"))
            found |= here
        return found

    async def _follow(self, number: bytes, first: int, sealed_at: bytes) -> None:
        """Open the partition that a seal names, then list it: so every listed partition is open for appends.

        If a later partition is listed, this one may have been trimmed and deleted already, so it must not be opened.
        If none is, it cannot have been deleted before a tombstone expires. This process may be suspended here for
        longer than that, so open.lua compares the time.
        """
        last = await last_known(self._redis)
        if last is not None and last >= int(number):
            return
        half_a_tombstone_ms = TOMBSTONE_SECONDS * 500
        if await self._scripts.run("open", [key(number.decode(), "state")], first, sealed_at, half_a_tombstone_ms):
            await self._scripts.run("make_known", [PARTITIONS], number)

    async def _find(self) -> tuple[int, list[int]]:
        """The last partition that is listed, and those before it in which an id may be remembered."""
        last = await last_known(self._redis)
        sealed: list[int] = []
        if last is None:  # every log begins with partition 0, which holds no event
            await open_first(self._scripts)
            last = 0
        else:
            # A partition is sealed when the next one is opened. So these are the partitions that were opened within
            # REMEMBER_SECONDS, and the one before them.
            since = last - REMEMBER_SECONDS * 1000
            recent = await self._redis.zrangebyscore(PARTITIONS, since, f"({last}")
            before = await self._redis.zrevrangebyscore(PARTITIONS, f"({since}", "-inf", start=0, num=1)
            sealed = numbers([*before, *recent])
        # Set both without an await in between: a concurrent append must not search the wrong partitions for its id.
        self._open, self._sealed = last, sealed
        return last, sealed


async def last_known(redis: BytesRedis) -> int | None:
    """The last partition that is listed; its seal leads to any later one."""
    return next(iter(numbers(await redis.zrange(PARTITIONS, -1, -1))), None)


async def open_first(scripts: Scripts) -> None:
    """Open partition 0, with which every log begins. If it is open, this is still a write but changes no data."""
    await scripts.run("open", [key(0, "state")], 0)
