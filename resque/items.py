"""Reads a list page by page, and of large elements only as much as can be shown.

An element is identified by the SHA-1 of its exact bytes, because its index changes when elements before it are removed.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from redis.asyncio import Redis

from asynckit.bytes_redis import bytes_redis

from .answers import or_empty
from .scripts import Scripts
from .wire import BadJob, Job, read_job

MOST_BYTES = 64 << 10  # of one element
STEP = 200  # elements read in one call


@dataclass(frozen=True, slots=True)
class Item:
    place: int
    """The index in the list; 0 is the head."""
    digest: str
    """SHA-1 of all its bytes, in hex."""
    size: int
    """Bytes."""
    text: bytes
    """All its bytes, or the beginning of a large element."""

    @property
    def whole(self) -> bool:
        return len(self.text) == self.size

    def job(self, queue: str = "") -> Job:
        """The job that it holds. `queue`: the one that it is in. Raises BadJob, also for a large element."""
        if not self.whole:
            raise BadJob(f"too large to read here: {self.size} bytes")
        return read_job(self.text, queue)


class Items:
    """Reads lists in Redis. A key that is not a list counts as empty. Methods raise RedisError."""

    def __init__(self, redis: Redis, scripts: Scripts) -> None:
        self._redis = bytes_redis(redis)
        self._scripts = scripts

    async def count(self, key: str | bytes) -> int:
        return int(await or_empty(self._redis.llen(key), 0))

    async def read(self, key: str | bytes, first: int, count: int, most: int = MOST_BYTES) -> list[Item]:
        """At most `count` elements from the index `first`, of each at most `most` bytes."""
        found = await or_empty(self._scripts("look", [key], first, first + count - 1, most), [])
        return [Item(first + number, digest.decode(), size, text) for number, (size, digest, text) in enumerate(found)]

    async def all(self, key: str | bytes) -> AsyncIterator[Item]:
        """All elements from head to tail. If other programs remove elements at the head meanwhile, some are skipped."""
        first, more = 0, True
        while more:
            found = await self.read(key, first, STEP)
            for item in found:
                yield item
            first, more = first + STEP, len(found) == STEP

    async def find(self, key: str | bytes, digest: str, near: int) -> Item | None:
        """The complete element whose digest begins with `digest`, or None.

        It was last seen at the index `near` and can only have moved towards the head, because lists grow at their
        tails. So the search goes in that direction first.
        """
        last = min(near, await self.count(key) - 1)
        for start in (*range(last, -1, -STEP), *range(last + STEP, await self.count(key) + STEP, STEP)):
            first = max(0, start - STEP + 1)
            for item in reversed(await self.read(key, first, start - first + 1, 0)):
                if item.digest.startswith(digest) and (whole := await self._whole(key, item)):
                    return whole
        return None

    async def _whole(self, key: str | bytes, item: Item) -> Item | None:
        found = await self.read(key, item.place, 1, item.size)
        return found[0] if found and found[0].digest == item.digest else None
