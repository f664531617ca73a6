"""The producer's side of the partitions: finding the open one, and following the seals."""

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from .events import Event
from .keys import PARTITIONS, key, keys, numbers
from .scripts import Scripts

REMEMBER_SECONDS = 60  # so long, at least, an append of the same id is found out
TOMBSTONE_SECONDS = 86_400  # how a trimmed partition ended is remembered for so long
TRIES = 100  # each seal that one comes to costs one, and so does a Redis that somebody has emptied


class Appender:
    """Where this process believes the end of the log to be. If it is wrong, a seal says so and where to go."""

    def __init__(self, redis: Redis, scripts: Scripts, partition_ms: int, partition_events: int) -> None:
        self._redis: Any = redis
        self._scripts = scripts
        self._limits = (partition_ms, partition_events, REMEMBER_SECONDS)
        self._open: int | None = None
        self._sealed: list[int] = []  # those before it in which an id may still be remembered

    async def append(self, items: Sequence[tuple[Event, bool]]) -> list[str]:
        """The position of each event; with True, its id is new for sure. Raises RedisError."""
        lines = [b"%s %s\n" % (event.id.encode(), event.to_json()) for event, _ in items]
        old = [event.id for event, new in items if not new]
        known: dict[str, str] = {}
        searched: set[int] = set()
        for _ in range(TRIES):
            number, sealed = (self._open, self._sealed) if self._open is not None else await self._find()
            if old:
                known |= await self._search([n for n in sealed if n not in searched], old)
                searched.update(sealed)
                # What is known stays where it is: in the open partition it would be new.
                lines = [b"%s %s\n" % (e.id.encode(), e.to_json()) for e, _ in items if e.id not in known]
            what, *rest = await self._append_to(number, lines)
            if what == b"appended":
                positions = [f"{number}-{index}" for index in rest]
                if not known:
                    return positions
                places = iter(positions)
                return [known[event.id] if event.id in known else next(places) for event, _ in items]
            self._open = None
            if what == b"sealed":
                await self._follow(*rest)
            else:  # it was forgotten, or somebody has emptied Redis: it leads nowhere
                await self._redis.zrem(PARTITIONS, number)
        raise RedisError("the log changes faster than one can append to it")

    async def _append_to(self, number: int, lines: Sequence[bytes]) -> Any:
        of_one = keys(number, "partitions", "state", "ids", "counters")
        return await self._scripts.run_acknowledged("append", of_one, number, *self._limits, b"".join(lines))

    async def _search(self, sealed: Sequence[int], ids: Sequence[str]) -> dict[str, str]:
        """Where these ids are in partitions that are sealed, and so can get no more of them."""
        if not sealed:
            return {}
        pipeline = self._redis.pipeline(transaction=False)
        for number in sealed:
            pipeline.hmget(key(number, "ids"), ids)
        return {
            event_id: f"{number}-{int(index)}"
            for number, indexes in zip(sealed, await pipeline.execute(), strict=True)
            for event_id, index in zip(ids, indexes, strict=True)
            if index is not None
        }

    async def _follow(self, number: bytes, first: int, told: bytes) -> None:
        """Open the partition to which a seal points, then make it known: so all that is known can be used.

        Not when a later one is known, for it may be trimmed and forgotten. When none was, it cannot have been forgotten
        before the end of a tombstone, however long this process sleeps from here on: open.lua looks at the time.
        """
        last = await last_known(self._redis)
        if last is not None and last >= int(number):
            return
        if await self._scripts.run("open", [key(number.decode(), "state")], first, told, TOMBSTONE_SECONDS * 500):
            await self._scripts.run("make_known", [PARTITIONS], number)

    async def _find(self) -> tuple[int, list[int]]:
        """The last partition that is known, and those before it in which an id may be remembered."""
        last = await last_known(self._redis)
        sealed: list[int] = []
        if last is None:  # all begin at 0, which holds no event
            await open_first(self._scripts)
            last = 0
        else:
            # A partition's seal is as old as the one after it. So: what was opened within that time, and one more.
            since = last - REMEMBER_SECONDS * 1000
            recent = await self._redis.zrangebyscore(PARTITIONS, since, f"({last}")
            before = await self._redis.zrevrangebyscore(PARTITIONS, f"({since}", "-inf", start=0, num=1)
            sealed = numbers([*before, *recent])
        self._open, self._sealed = last, sealed  # together, or an id would not be searched for where it is
        return last, sealed


async def last_known(redis: Any) -> int | None:
    """The seals lead on from there."""
    return next(iter(numbers(await redis.zrange(PARTITIONS, -1, -1))), None)


async def open_first(scripts: Scripts) -> None:
    """Where all begin. A second time does nothing, but is a write nevertheless."""
    await scripts.run("open", [key(0, "state")], 0)
