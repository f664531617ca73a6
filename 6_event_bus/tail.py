"""The producer's side of the partitions: finding the open one, and following the seals."""

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from .events import Event
from .keys import PARTITIONS, key, keys, numbers
from .scripts import Scripts

REMEMBER_SECONDS = 60  # so long, at least, an append of the same id is found out
TRIES = 100  # each seal that one comes to costs one, and so does a Redis that somebody has emptied


class Tail:
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
            number = self._open if self._open is not None else await self.find()
            if old:
                known |= await self._search([n for n in self._sealed if n not in searched], old)
                searched.update(self._sealed)
                # What is known stays where it is: in the open partition it would be new.
                lines = [b"%s %s\n" % (e.id.encode(), e.to_json()) for e, _ in items if e.id not in known]
            what, *rest = await self._append_to(number, lines)
            if what == b"appended":
                positions = [f"{number}-{index}" for index in rest]
                if not known:
                    return positions
                places = iter(positions)
                return [known[event.id] if event.id in known else next(places) for event, _ in items]
            if what == b"sealed":
                await self._follow(*rest)
            else:  # the partition is gone: somebody has emptied Redis
                await self.find()
        raise RedisError("the log changes faster than one can append to it")

    async def _append_to(self, number: int, lines: Sequence[bytes]) -> Any:
        of_one = keys(number, "partitions", "state", "ids", "counters")
        return await self._scripts.run("append", of_one, number, *self._limits, b"".join(lines))

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

    async def _follow(self, number: bytes, first: int) -> None:
        """Go where a seal points. Opened, then made known, then used: so all that is known can be used."""
        await self._scripts.run("open", [key(number.decode(), "state")], first)
        await self._redis.zadd(PARTITIONS, {number: int(number)})
        await self.find()

    async def find(self) -> int:
        """The last partition that is known; the seals lead on from there. All begin at 0, which holds no event."""
        last = numbers(await self._redis.zrange(PARTITIONS, -1, -1))
        if not last:
            await open_first(self._scripts)
            self._open, self._sealed = 0, []
            return 0
        [self._open] = last
        # A partition's seal is as old as the one after it. So: what was opened within that time, and one more.
        since = self._open - REMEMBER_SECONDS * 1000
        recent = await self._redis.zrangebyscore(PARTITIONS, since, f"({self._open}")
        before = await self._redis.zrevrangebyscore(PARTITIONS, f"({since}", "-inf", start=0, num=1)
        self._sealed = numbers([*before, *recent])
        return self._open


async def open_first(scripts: Scripts) -> None:
    """Where all begin. A second time does nothing, but is a write nevertheless."""
    await scripts.run("open", [key(0, "state")], 0)
