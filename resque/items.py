"""What stands in a list, whoever has written it: read a page at a time, and never more of it than can be shown.

A thing is known by the SHA-1 of its exact bytes. Its place changes when others before it go; its text does not.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from .scripts import Scripts

MOST_BYTES = 64 << 10  # of one thing; who wants to see more has to look into Redis
STEP = 200  # things looked at in one call

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Item:
    place: int
    """From 0, the head of the list."""
    digest: str
    """SHA-1 of the whole, in hex."""
    size: int
    """Bytes of the whole."""
    text: bytes
    """The whole, or its beginning."""

    @property
    def whole(self) -> bool:
        return len(self.text) == self.size


class Items:
    """The lists of Redis. A key that is no list counts as an empty one. Methods raise RedisError."""

    def __init__(self, redis: Redis, scripts: Scripts) -> None:
        self._redis: Any = redis  # its types do not know that answers are bytes here
        self._scripts = scripts

    async def count(self, key: str | bytes) -> int:
        try:
            return int(await self._redis.llen(key))
        except ResponseError as error:
            return _nothing(error, 0)

    async def read(self, key: str | bytes, first: int, count: int, most: int = MOST_BYTES) -> list[Item]:
        """So many from this place on, of each so many bytes."""
        try:
            found = await self._scripts("look", [key], first, first + count - 1, most)
        except ResponseError as error:
            return _nothing(error, [])
        return [Item(first + number, digest.decode(), size, text) for number, (size, digest, text) in enumerate(found)]

    async def all(self, key: str | bytes, most: int = MOST_BYTES) -> AsyncIterator[Item]:
        """From the head to the tail. What others take meanwhile from the head may hide some."""
        first, more = 0, True
        while more:
            found = await self.read(key, first, STEP, most)
            for item in found:
                yield item
            first, more = first + STEP, len(found) == STEP

    async def find(self, key: str | bytes, digest: str, near: int) -> Item | None:
        """The whole of what begins with this digest, or None.

        It was seen at `near` and can only have moved towards the head, because lists grow at their tails: the search
        goes that way first.
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


def _nothing(error: ResponseError, nothing: T) -> T:
    if "WRONGTYPE" in str(error):
        return nothing
    raise error
