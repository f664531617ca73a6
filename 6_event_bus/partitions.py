"""The log on partitions: lists, and Lua scripts that do in one step what must be one step. log.py says how it works."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from .log import (
    BEGINNING,
    END,
    HINTS,
    LOOK_SECONDS,
    PARTITION_EVENTS,
    REMEMBER_SECONDS,
    TOMBSTONE_SECONDS,
    Claimed,
    Event,
    Lag,
    Log,
    Partition,
    Trimmed,
    milliseconds,
    read_position,
)

PARTITIONS = "eventr:partitions"
SUBSCRIBE_AGAIN_SECONDS = 0.5
TRIES = 100  # to append: each seal that one comes to costs one, and so does a Redis that somebody has emptied

log = logging.getLogger(__name__)


@dataclass
class Stretch:
    """A partition that a consumer has not done yet, as far as this process knows."""

    number: int
    first: int
    index: int = 0  # where the consumer begins in it: not 0 in the one to which a replay has gone
    look: float = 0.0  # when something may be due in it, if anything is pending: time.monotonic()


@dataclass
class Walk:
    """The way of a consumer through the chain, as this process sees it: in the last stretch are the new events."""

    epoch: int = 0
    cursor: int = -1  # the partition to which the consumer's cursor has been moved
    stretches: list[Stretch] = field(default_factory=list)
    look: float = 0.0  # when the cursor is to be read again: somebody may have started a replay
    hints: int = 0  # those that had come when this process looked last


class PartitionedLog(Log):
    def __init__(
        self,
        redis: Redis,
        lease_seconds: float,
        partition_seconds: float = 60.0,
        partition_events: int = PARTITION_EVENTS,
        hints: Redis | None = None,
    ) -> None:
        """`hints` is the client to subscribe with, where `redis` cannot: a cluster's."""
        super().__init__(redis, lease_seconds)
        self._partition_ms = int(partition_seconds * 1000)
        self._partition_events = partition_events
        self._tail: int | None = None
        self._sealed: list[int] = []  # partitions before the tail in which an id may still be remembered
        self._walks: dict[str, Walk] = defaultdict(Walk)
        self._hints_from = hints or redis
        self._hints = 0  # so many have come
        self._hint = asyncio.Event()  # the next one
        self._listener: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._listener = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *error: object) -> None:
        await super().__aexit__(*error)
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait([self._listener])

    # Producers

    async def _append_many(self, items: Sequence[tuple[Event, bool]]) -> Sequence[str]:
        lines = [b"%s %s\n" % (event.id.encode(), event.to_json()) for event, _ in items]
        old = [event.id for event, new in items if not new]
        known: dict[str, str] = {}
        searched: set[int] = set()
        if self._tail is None:
            await self._find_tail()
        for _ in range(TRIES):
            assert self._tail is not None
            if old:
                behind = [number for number in self._sealed if number not in searched]
                known |= await self._search(behind, old)
                searched.update(behind)
            # What is known stays where it is: in the open partition it would be new.
            todo = (
                [line for line, (event, _) in zip(lines, items, strict=True) if event.id not in known]
                if known
                else lines
            )
            tail = self._tail
            what, *rest = await self._append_to(tail, todo)
            if what == b"appended":
                places = iter([f"{tail}-{index}" for index in rest])
                return [known[event.id] if event.id in known else next(places) for event, _ in items]
            if what == b"sealed":
                await self._follow(*rest)
            else:  # the key is gone: somebody has emptied Redis
                await self._find_tail()
        raise RedisError("the log changes faster than one can append to it")

    async def _append_to(self, number: int, lines: Sequence[bytes]) -> list[Any]:
        keys = [f"eventr:{kind}:{{{number}}}" for kind in ("partitions", "state", "ids")]
        limits = (number, self._partition_ms, self._partition_events, REMEMBER_SECONDS)
        return cast(list[Any], await self._scripts.run("append", keys, *limits, b"".join(lines)))

    async def _search(self, numbers: Sequence[int], ids: Sequence[str]) -> dict[str, str]:
        """Where these ids are in partitions that are sealed, and so can get no more of them."""
        pipeline = self._redis.pipeline(transaction=False)
        for number in numbers:
            pipeline.hmget(_key(number, "ids"), ids)
        places = zip(numbers, await pipeline.execute(), strict=True) if numbers else ()
        return {
            event_id: f"{number}-{int(index)}"
            for number, indexes in places
            for event_id, index in zip(ids, indexes, strict=True)
            if index is not None
        }

    async def _follow(self, number: bytes, first: int) -> None:
        """Go where a seal points. Opened, then made known, then used: so that all that is known can be used."""
        await self._scripts.run("open", [f"eventr:state:{{{number.decode()}}}"], first)
        await self._redis.zadd(PARTITIONS, {number: int(number)})
        await self._find_tail()

    async def _find_tail(self) -> None:
        """The last partition that is known; the seals lead on from there. All begin at 0, which holds no event."""
        last = _numbers(await self._redis.zrange(PARTITIONS, -1, -1))
        if not last:
            await self._scripts.run("open", ["eventr:state:{0}"], 0)
            self._tail, self._sealed = 0, []
            return
        [self._tail] = last
        # A partition's seal is as old as the one after it. So: what was opened within that time, and one more.
        since = self._tail - REMEMBER_SECONDS * 1000
        recent = await self._redis.zrangebyscore(PARTITIONS, since, f"({self._tail}")
        before = await self._redis.zrevrangebyscore(PARTITIONS, f"({since}", "-inf", start=0, num=1)
        self._sealed = _numbers([*before, *recent])

    async def check(self) -> None:
        await self._scripts.run("open", ["eventr:state:{0}"], 0)

    # Consumers

    async def _begin(self, consumer: str) -> None:
        number = next(iter(_numbers(await self._redis.zrange(PARTITIONS, 0, 0))), 0)
        if number == 0:
            await self._scripts.run("open", ["eventr:state:{0}"], 0)
        before = await self._redis.hget(f"eventr:state:{{{number}}}", "first")
        await self._scripts.run("rewind", [_cursor(consumer)], number, before or 0, 0, "NX")

    async def _claim(self, consumer: str, limit: int) -> list[Claimed]:
        walk = self._walks[consumer]
        walk.hints = self._hints
        now = time.monotonic()
        if now >= walk.look:
            await self._read_cursor(consumer, walk)
        claimed: list[Claimed] = []
        for stretch in walk.stretches[:-1]:
            if now >= stretch.look and _room(claimed, limit) and stretch in walk.stretches:
                claimed += await self._claim_in(consumer, walk, stretch, limit - len(claimed))
        last = None
        while walk.stretches and walk.stretches[-1] is not last and _room(claimed, limit):
            last = walk.stretches[-1]
            claimed += await self._claim_in(consumer, walk, last, limit - len(claimed))
        await self._advance(consumer, walk)
        return claimed

    async def _claim_in(self, consumer: str, walk: Walk, stretch: Stretch, limit: int) -> list[Claimed]:
        """Claim in one partition, and go on to the next one when there is nothing more to come in it."""
        keys = _keys(stretch.number, "partitions", "state", "counters") + _leases(stretch.number, consumer)
        now = time.monotonic()
        what, *reply = await self._scripts.run(
            "claim", keys, consumer, walk.epoch, stretch.index, self.owner, self._lease_ms, limit
        )
        if what != b"claimed":
            await self._no_longer_there(consumer, walk, stretch, what, reply)
            return []
        following, next_first, new, pending, due, alone, *words = reply
        stretch.look = now + due / 1000 if pending else 0.0
        if following and not new:
            if stretch is walk.stretches[-1]:
                walk.stretches.append(Stretch(int(following), next_first))
            if not pending:
                walk.stretches.remove(stretch)
        until = now + self._lease_ms / 1000
        triples = iter(words)
        return [
            Claimed(consumer, f"{stretch.number}-{index}", attempts, element, until, alone=bool(alone))
            for index, attempts, element in zip(triples, triples, triples, strict=True)
        ]

    async def _no_longer_there(
        self, consumer: str, walk: Walk, stretch: Stretch, what: bytes, details: Sequence[Any]
    ) -> None:
        walk.stretches.remove(stretch)
        lost = 0
        match what:
            case b"stale":  # a replay has begun a new epoch: read the cursor again
                walk.stretches.clear()
                walk.look = 0.0
                return
            case b"trimmed":
                lost, following, first = details
                following = int(following)
            case _:  # trimmed so long ago that only the index of partitions knows how it goes on
                later = await self._redis.zrangebyscore(PARTITIONS, f"({stretch.number}", "+inf", start=0, num=1)
                if not later:
                    walk.look = time.monotonic() + LOOK_SECONDS
                    return
                following = int(later[0])
                first = int(await self._redis.hget(_key(following, "state"), "first") or 0)
                lost = max(0, first - stretch.first - stretch.index) if stretch.number else 0
        if not walk.stretches:
            walk.stretches.append(Stretch(following, first))
        if lost:
            log.warning("%s was overtaken: %d events were trimmed before it had done them", consumer, lost)
            self._count(consumer, "overtaken", lost)

    async def _read_cursor(self, consumer: str, walk: Walk) -> None:
        walk.look = time.monotonic() + LOOK_SECONDS
        words = await self._redis.hmget(_cursor(consumer), "partition", "first", "index", "epoch")
        if None in words:  # somebody has emptied Redis
            await self._begin(consumer)
            return
        partition, first, index, epoch = map(int, words)
        if epoch != walk.epoch or not walk.stretches:
            walk.epoch, walk.stretches = epoch, [Stretch(partition, first, index)]
        else:  # another process may have done what this one still means to look at
            walk.stretches = [s for s in walk.stretches if s.number >= partition] or [Stretch(partition, first, index)]
        walk.cursor = partition

    async def _advance(self, consumer: str, walk: Walk) -> None:
        """All before the first stretch is done."""
        if walk.stretches and walk.stretches[0].number > walk.cursor:
            first = walk.stretches[0]
            await self._scripts.run("advance", [_cursor(consumer)], walk.epoch, first.number, first.first)
            walk.cursor = first.number

    def _committed(self, claimed: Claimed, pending: int) -> None:
        """The last one of a partition that was left behind: the cursor may move on."""
        if pending == 0 and not claimed.parked:
            number, _ = read_position(claimed.position)
            for stretch in self._walks[claimed.consumer].stretches:
                if stretch.number == number:
                    stretch.look = 0.0

    def _leases(self, claimed: Claimed) -> tuple[str, ...]:
        return tuple(_leases(claimed.position.partition("-")[0], claimed.consumer))

    def _member(self, claimed: Claimed) -> str:
        return claimed.position if claimed.parked else claimed.position.partition("-")[2]

    # Waiting

    async def _wait(self, consumer: str, seconds: float) -> None:
        walk = self._walks[consumer]
        if self._hints != walk.hints or self._closing:  # it came while this process was looking
            return
        now = time.monotonic()
        due = [stretch.look - now for stretch in walk.stretches if stretch.look]
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min([seconds, *due]))):
                await self._hint.wait()

    def stop_waiting(self) -> None:
        super().stop_waiting()
        self._hint.set()

    async def _listen(self) -> None:
        """Hints are for speed only: what comes while we are not subscribed is seen a second later."""
        while True:
            try:
                async with self._hints_from.pubsub() as pubsub:
                    await pubsub.subscribe(HINTS)
                    while True:
                        message = await pubsub.get_message(timeout=None)
                        if message is not None:
                            self._hinted(message["data"] == b"rewound" or message["type"] == "subscribe")
            except RedisError:  # those who claim say so in the log
                await asyncio.sleep(SUBSCRIBE_AGAIN_SECONDS)
            except Exception:  # an answer that is none
                log.exception("error on %s", HINTS)
                await asyncio.sleep(SUBSCRIBE_AGAIN_SECONDS)

    def _hinted(self, rewound: bool) -> None:
        if rewound:
            self._shelf_looks.clear()
            for walk in self._walks.values():
                walk.look = 0.0
        self._hints += 1
        self._hint.set()
        if not self._closing:
            self._hint = asyncio.Event()

    # Replay and retention

    async def replay(self, consumer: str, start: str | float) -> None:
        await self._register(consumer)
        number, index = await self._find(start)
        first = await self._redis.hget(_key(number, "state"), "first")
        await self._scripts.run("rewind", [_cursor(consumer)], number, first or 0, index, "")
        self._walks[consumer].look = 0.0

    async def _find(self, start: str | float) -> tuple[int, int]:
        """The partition and the index of the first event at or after this place."""
        if start == END:
            await self._find_tail()
            assert self._tail is not None
            return self._tail, int(await self._redis.llen(_key(self._tail, "partitions")))
        if isinstance(start, str) and start != BEGINNING:
            number, index = read_position(start)
            length = await self._redis.llen(_key(number, "partitions"))
            if not 0 <= index < length:
                raise ValueError(f"no event of the log has the position {start}")
            return number, index
        ms = 0 if start == BEGINNING else milliseconds(float(start))
        # All that was appended at that time or later is in the last partition that was opened before, or behind it.
        before = await self._redis.zrevrangebyscore(PARTITIONS, f"({ms}", "-inf", start=0, num=1)
        if not before:
            before = await self._redis.zrange(PARTITIONS, 0, 0)
        number = int(before[0]) if before else 0
        return number, int(await self._scripts.run("seek", [_key(number, "partitions")], ms))

    async def trim(
        self, older_than: float | None = None, larger_than: int | None = None, *, force: bool = False
    ) -> Trimmed:
        consumers = await self.consumers()
        cursors = {name: await self._cursor_partition(name) for name in consumers}
        slowest = min(cursors, key=lambda name: cursors[name], default=None)
        partitions = await self.partitions()
        total = sum(partition.bytes for partition in partitions)
        now = await self._now()
        events = gone = 0
        for partition in partitions:
            too_old = older_than is not None and partition.sealed and partition.last <= now - older_than
            if not partition.sealed or not (too_old or (larger_than is not None and total > larger_than)):
                break
            if not force and slowest is not None and int(partition.number) >= cursors[slowest]:
                return Trimmed(events, gone, slowest)
            events += await self._trim_one(int(partition.number), consumers)
            gone += 1
            total -= partition.bytes
        return Trimmed(events, gone, None)

    async def _trim_one(self, number: int, consumers: Sequence[str]) -> int:
        keys = _keys(number, "partitions", "state", "counters", "ids")
        keys += [key for name in consumers for key in _leases(number, name)]
        events = await self._scripts.run("trim", keys, TOMBSTONE_SECONDS, *consumers)
        await self._redis.zrem(PARTITIONS, number)
        return int(events)

    # What there is

    async def partitions(self, newest: int | None = None) -> list[Partition]:
        numbers = _numbers(await self._redis.zrange(PARTITIONS, -(newest or 0), -1))
        pipeline = self._redis.pipeline(transaction=False)
        for number in numbers:
            pipeline.hmget(_key(number, "state"), "first", "next", "last", "bytes", "trimmed")
            pipeline.llen(_key(number, "partitions"))
        replies = iter(await pipeline.execute(raise_on_error=False))
        return [_partition(n, state, length) for n, state, length in zip(numbers, replies, replies, strict=True)]

    async def _lag(self, consumer: str) -> Lag:
        words = await self._redis.hmget(_cursor(consumer), "partition", "index", "epoch")
        partition, index, epoch = (_int(word) for word in words)
        newest = await self.partitions(newest=1)
        end = newest[0].first + newest[0].length if newest else 0
        counts = await self._counts(consumer)
        here, oldest, pending, claimed = f"{partition}-{index}", 0.0, 0, None
        later = await self._redis.zrangebyscore(PARTITIONS, f"({partition}", "+inf")
        for number in (partition, *_numbers(later)):
            leases = _leases(number, consumer)
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.hget(_key(number, "counters"), consumer)
            pipeline.hget(_key(number, "state"), "first")
            pipeline.zrange(leases[0], 0, -1)
            counter, first, indexes = await pipeline.execute()
            visited, _, place = (counter or b"").partition(b" ")
            if _int(visited) != epoch:  # nobody has come as far as this yet
                if claimed is None:
                    claimed = _int(first) + index
                    oldest = await self._age(number, index)
                break
            claimed = _int(first) + _int(place)
            if not pending:
                cursor = min([_int(place), *map(int, indexes)])
                here, oldest = f"{number}-{cursor}", await self._age(number, cursor)
            pending += len(indexes)
        if not oldest and end > (claimed or 0) and newest:
            oldest = await self._age(int(newest[0].number), 0)
        return Lag(here, max(0, end - (claimed or 0)), pending, oldest_seconds=oldest, **counts)

    async def _age(self, number: int, index: int) -> float:
        """Seconds since this event was appended; 0 if there is none."""
        element = await self._redis.lindex(_key(number, "partitions"), index)
        stamp = (element or b"").partition(b" ")[0]
        if not stamp.isdigit():
            return 0.0
        return max(0.0, await self._now() - int(stamp) / 1000)

    async def _cursor_partition(self, consumer: str) -> int:
        return _int(await self._redis.hget(_cursor(consumer), "partition"))


def _room(claimed: Sequence[Claimed], limit: int) -> bool:
    return len(claimed) < limit and not (claimed and claimed[-1].alone)


def _key(number: int, kind: str) -> str:
    return f"eventr:{kind}:{{{number}}}"


def _keys(number: int, *kinds: str) -> list[str]:
    return [_key(number, kind) for kind in kinds]


def _leases(number: int | str, consumer: str) -> list[str]:
    return [f"eventr:pending:{{{number}}}:{consumer}", f"eventr:holders:{{{number}}}:{consumer}"]


def _cursor(consumer: str) -> str:
    return f"eventr:cursor:{{{consumer}}}"


def _numbers(members: Sequence[bytes]) -> list[int]:
    """Partitions of the index; what is no number in it is none."""
    return [int(member) for member in members if member.isdigit()]


def _int(word: bytes | None) -> int:
    """Bad data count as nothing."""
    return int(word) if word is not None and word.isdigit() else 0


def _partition(number: int, state: Any, length: Any) -> Partition:
    first, following, last, size, trimmed = state if isinstance(state, list) else [None] * 5
    return Partition(
        number=str(number),
        opened=number / 1000,
        last=_int(last) / 1000,
        first=_int(first),
        length=length if isinstance(length, int) else 0,
        bytes=_int(size),
        sealed=following is not None,
        trimmed=trimmed is not None,
    )
