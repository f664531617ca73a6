"""The log on partitions: lists, and Lua scripts for each step that must be atomic. log.py explains the design.

The producer's side is in appender.py, the consumer's in reader.py. Replay, trim and lag are here.
"""

from collections.abc import Sequence

from redis.asyncio import Redis

from asynckit.cluster_client import ClusterRedis

from .appender import TOMBSTONE_SECONDS, Appender, last_known, open_first
from .events import Claimed, Event, milliseconds, read_position
from .hints import Hints
from .inspection import Inspection
from .keys import PARTITIONS, as_number, cursor, key, keys, leases, numbers
from .log import BEGINNING, END, Log
from .reader import Reader
from .views import Lag, Partition, Trimmed

PARTITION_EVENTS = 10_000  # at most in one partition: Redis takes longer to reach the middle of a longer list


class PartitionedLog(Log):
    def __init__(
        self,
        redis: Redis,
        lease_seconds: float,
        partition_seconds: float = 60.0,
        partition_events: int = PARTITION_EVENTS,
        ack_replicas: int = 0,
    ) -> None:
        super().__init__(redis, lease_seconds, ack_replicas=ack_replicas)
        self.limits = partition_seconds, partition_events
        self._appender = Appender(redis, self._scripts, int(partition_seconds * 1000), partition_events)
        self._inspection = Inspection(redis)
        self._reader_of: dict[str, Reader] = {}
        self._hints = Hints(redis, self._rewound)

    async def __aexit__(self, *error: object) -> None:
        await super().__aexit__(*error)
        await self._hints.close()

    # Producers

    async def _append_many(self, items: Sequence[tuple[Event, bool]]) -> Sequence[str]:
        return await self._appender.append(items)

    async def end(self) -> str:
        partition, index = await self._find(END)
        return f"{partition}-{index}"

    async def check(self) -> None:
        await open_first(self._scripts)

    # Consumers

    async def _begin(self, consumer: str) -> None:
        begin = next(iter(numbers(await self._redis.zrange(PARTITIONS, 0, 0))), 0)
        if begin == 0:
            await open_first(self._scripts)
        first = as_number(await self._redis.hget(key(begin, "state"), "first"))
        await self._scripts.run("rewind", [cursor(consumer)], begin, first, 0, "NX")

    async def _has_place(self, consumer: str) -> bool:
        return bool(await self._redis.exists(cursor(consumer)))

    async def _claim(self, consumer: str, limit: int) -> list[Claimed]:
        reader = self._reader(consumer)
        reader.hints = self._hints.count
        claimed = await reader.claim(limit)
        if claimed is None:
            self._registration.forget(consumer)
        return claimed or []

    def _reader(self, consumer: str) -> Reader:
        if consumer not in self._reader_of:
            parts = (self._redis, self._scripts, self._counts, consumer, self.owner, self._lease_ms, self._tokens)
            self._reader_of[consumer] = Reader(*parts, spread=isinstance(self._redis, ClusterRedis))
        return self._reader_of[consumer]

    async def _wait(self, consumer: str, seconds: float) -> None:
        reader = self._reader(consumer)
        await self._hints.wait(reader.hints, min(seconds, reader.seconds_until_due()))

    def stop_waiting(self) -> None:
        super().stop_waiting()
        self._hints.end()

    def _rewound(self) -> None:
        self._parked_events.look_now()
        for reader in self._reader_of.values():
            reader.look_now()

    def _committed(self, claimed: Claimed, pending: int) -> None:
        if pending == 0 and not claimed.parked:
            self._reader(claimed.consumer).nothing_pending_in(read_position(claimed.position)[0])

    def _leases(self, claimed: Claimed) -> tuple[str, ...]:
        return tuple(leases(claimed.position.partition("-")[0], claimed.consumer))

    def _member(self, claimed: Claimed) -> str:
        return claimed.position if claimed.parked else claimed.position.partition("-")[2]

    # Replay and retention

    async def replay(self, consumer: str, start: str | float) -> None:
        self._registration.forget(consumer)  # another process may just have removed it
        await self._register(consumer)
        partition, index = await self._find(start)
        first = as_number(await self._redis.hget(key(partition, "state"), "first"))
        await self._scripts.run("rewind", [cursor(consumer)], partition, first, index, "")
        await self._delays.clear(consumer)
        self._reader(consumer).look_now()

    async def _find(self, start: str | float) -> tuple[int, int]:
        """The partition and the index of the first event at or after `start`. Raises ValueError."""
        if start == END:
            partition = await last_known(self._redis)
            if partition is None:
                await open_first(self._scripts)
                partition = 0
            return partition, int(await self._redis.llen(key(partition, "partitions")))
        if isinstance(start, str) and start != BEGINNING:
            partition, index = read_position(start)
            if index >= await self._redis.llen(key(partition, "partitions")):
                raise ValueError(f"the log has no event at position {start}")
            return partition, index
        ms = 0 if start == BEGINNING else milliseconds(float(start))
        # Events of that time or later are in the last partition that was opened before that time, or in later ones.
        before = await self._redis.zrevrangebyscore(PARTITIONS, f"({ms}", "-inf", start=0, num=1)
        [partition, *_] = numbers(before or await self._redis.zrange(PARTITIONS, 0, 0)) or [0]
        return partition, int(await self._scripts.run("seek", [key(partition, "partitions")], ms))

    async def trim(
        self, older_than: float | None = None, larger_than: int | None = None, *, force: bool = False
    ) -> Trimmed:
        partitions, forgotten = await self._inspection.partitions()
        if forgotten:
            await self._redis.zrem(PARTITIONS, *forgotten)
        consumers = await self._readers()
        cursors = {name: as_number(await self._redis.hget(cursor(name), "partition")) for name in consumers}
        slowest = min(cursors, key=lambda name: cursors[name], default=None)
        total = sum(partition.bytes for partition in partitions)
        now = await self.now()
        events = gone = 0
        for partition in partitions[:-1]:  # producers look for the end of the log in the last one, sealed or not
            too_old = older_than is not None and partition.last <= now - older_than
            too_large = larger_than is not None and total > larger_than
            if not partition.sealed or not (too_old or too_large):
                break
            if not force and slowest is not None and int(partition.number) >= cursors[slowest]:
                return Trimmed(events, gone, slowest)
            events += await self._trim_one(partition.number, consumers)
            gone += 1
            total -= partition.bytes
        return Trimmed(events, gone, None)

    async def _trim_one(self, partition: str, consumers: Sequence[str]) -> int:
        of_one = keys(partition, "partitions", "state", "counters", "ids")
        counted = await self._redis.hkeys(key(partition, "counters"))  # includes consumers that have left
        names = sorted({*consumers, *(name.decode(errors="replace") for name in counted)})
        of_consumers = [lease for name in names for lease in leases(partition, name)]
        events = await self._scripts.run("trim", [*of_one, *of_consumers], TOMBSTONE_SECONDS, *names)
        await self._redis.zrem(PARTITIONS, partition)
        return int(events)

    # Inspection

    async def partitions(self, newest: int | None = None) -> list[Partition]:
        there, _ = await self._inspection.partitions(newest)
        return there

    async def _lag(self, consumer: str) -> Lag:
        place = await self._inspection.place(consumer)
        waiting = await self._inspection.end() - (place.claimed or 0)
        oldest = await self._inspection.oldest_undone(place)
        return Lag(
            position=f"{place.partition}-{place.index}",
            waiting=max(0, waiting),
            pending=place.pending,
            oldest_seconds=max(0.0, await self.now() - oldest) if oldest is not None else 0.0,
            **await self._figures(consumer),
        )
