"""Read-only views of the log on partitions: its partitions, and the place of a consumer."""

from collections.abc import Iterator
from typing import Any

from redis.asyncio import Redis

from asynckit.bytes_redis import bytes_redis

from .keys import PARTITIONS, as_number, cursor, key, leases, numbers
from .views import Partition

STATE = ("first", "next", "last", "bytes", "trimmed")
NOTHING = [None] * len(STATE)


class Inspection:
    def __init__(self, redis: Redis) -> None:
        self._redis = bytes_redis(redis)

    async def partitions(self, newest: int | None = None) -> tuple[list[Partition], list[int]]:
        """The partitions, and the listed numbers without data: a trim was killed before it removed these numbers."""
        found = numbers(await self._redis.zrange(PARTITIONS, -(newest or 0), -1))
        pipeline = self._redis.pipeline(transaction=False)
        for partition in found:
            pipeline.hmget(key(partition, "state"), *STATE)
            pipeline.llen(key(partition, "partitions"))
        replies = iter(await pipeline.execute(raise_on_error=False))
        there, forgotten = [], []
        for number, state, length in zip(found, replies, replies, strict=True):
            if state == NOTHING:
                forgotten.append(number)
            else:
                there.append(_partition(number, state, length))
        return there, forgotten

    async def end(self) -> int:
        """How many events have ever been appended."""
        newest, _ = await self.partitions(1)
        return newest[0].first + newest[0].length if newest else 0

    async def place(self, consumer: str) -> "Place":
        """Read each partition from the consumer's cursor to the first one that the consumer has not claimed from."""
        words = await self._redis.hmget(cursor(consumer), "partition", "index", "epoch")
        partition, index, epoch = map(as_number, words)
        place = Place(partition, index)
        later = await self._redis.zrangebyscore(PARTITIONS, f"({partition}", "+inf")
        for number in (partition, *numbers(later)):
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.hget(key(number, "counters"), consumer)
            pipeline.hget(key(number, "state"), "first")
            pipeline.zrange(leases(number, consumer)[0], 0, -1)
            counter, first, pending = await pipeline.execute()
            visited, _, claimed = (counter or b"").partition(b" ")
            if as_number(visited) != epoch:
                place.not_visited(number, as_number(first))
                break
            place.visited(number, as_number(first), as_number(claimed), numbers(pending))
        return place

    async def appended(self, partition: int, index: int) -> float | None:
        """When this event was appended: unix seconds; None if it does not exist."""
        element = await self._redis.lindex(key(partition, "partitions"), index)
        stamp = (element or b"").partition(b" ")[0]
        return int(stamp) / 1000 if stamp.isdigit() else None

    async def oldest_undone(self, place: "Place") -> float | None:
        """When the first event that this consumer has not handled was appended: unix seconds; None if there is none."""
        for partition, index in place.candidates():
            if (moment := await self.appended(partition, index)) is not None:
                return moment
        return None


class Place:
    """Every event before `partition` and `index` is done, and the first `claimed` events of the log are claimed."""

    def __init__(self, partition: int, index: int) -> None:
        self.partition, self.index = partition, index
        self.claimed: int | None = None
        self.pending = 0
        self._after: int | None = None  # the first partition that the consumer has not claimed from

    def visited(self, partition: int, first: int, claimed: int, pending: list[int]) -> None:
        self.claimed = first + claimed
        if not self.pending:
            self.partition, self.index = partition, min([claimed, *pending])
        self.pending += len(pending)

    def not_visited(self, partition: int, first: int) -> None:
        if self.claimed is None:
            self.claimed = first + self.index
        else:
            self._after = partition

    def candidates(self) -> Iterator[tuple[int, int]]:
        """The places where the first event that is not done may be."""
        yield self.partition, self.index
        if self._after is not None:
            yield self._after, 0


def _partition(number: int, state: Any, length: Any) -> Partition:
    first, following, last, size, trimmed = state if isinstance(state, list) else NOTHING
    return Partition(
        number=str(number),
        opened=number / 1000,
        last=as_number(last) / 1000,
        first=as_number(first),
        length=length if isinstance(length, int) else 0,
        bytes=as_number(size),
        sealed=following is not None,
        trimmed=trimmed is not None,
    )
