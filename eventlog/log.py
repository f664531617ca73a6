"""The one new idea: an immutable log of events in Redis, which any number of consumers read, each at its own pace.

The log is a chain of partitions, each open for PARTITION_SECONDS or PARTITION_EVENTS. The number of a partition is when
it was opened, in ms since 1970 by the clock of Redis, and at least one more than that of the partition before. The
position of an event is `partition-index`: positions only grow, and that of an event never changes.

Why nobody can be skipped: events go to the one partition of the chain that is open. When its time is over, one script
*seals* it: no event can be added any more, and the number of the next partition is written into it, once and for all.
There is no other way to the next partition than through that seal, for producers and for consumers alike. So a
producer that comes late, with whatever it believes the time to be, finds the seal and follows it; and a consumer that
leaves a partition leaves nothing behind that could still grow. No clock has a part in this, not even Redis's own: if
it is turned back, the open partition stays open for longer. Only what is trimmed is forgotten after a day; so whoever
sleeps for half of one between the seal and the opening asks again.

Who may die when. The producer, before or after its script: the event is in the log or not, and the same append again
finds the id. Between seal and opening: whoever comes next opens it. A consumer's process, at any moment: what it
had claimed is claimed by another when the lease has ended. Redis, as far as it has written its file.

The keys. All keys of one partition have its number N in braces, so that Redis Cluster keeps them in one place, and
spreads the partitions; each script has the keys of one partition only, or of one consumer. NAME is a consumer.

    eventlog:partitions            zset    the partitions there are, by number: where a producer finds the last one
    eventlog:partitions:{N}        list    the events: "<ms when appended> <the event as JSON>"
    eventlog:state:{N}             hash    first (how many events the log has before it), bytes, last (ms of an append);
                                         once sealed next, length, sealed (ms); once its events are deleted trimmed
    eventlog:ids:{N}               hash    id of an event -> index; goes REMEMBER_SECONDS after the seal
    eventlog:counters:{N}          hash    NAME -> "epoch index": all before this index has been claimed at least once
    eventlog:pending:{N}:NAME      zset    index -> ms when it may be claimed again: claimed, and not yet committed
    eventlog:holders:{N}:NAME      hash    index -> "attempts token owner": who holds it since which claim of his;
                                         "attempts 0 " while it waits for another try

    eventlog:consumers             set     the names
    eventlog:cursor:{NAME}         hash    partition, first, index, epoch: all before this partition is done. A replay
                                         begins a new epoch; what a partition knows of an older one counts no more
    eventlog:counts:{NAME}, and parked, parked_order, pending and holders of {NAME}    see counts.py, parked.py

    eventlog:appended              channel a hint that there is something new. It may get lost: all look once a second

The index of a partition and the set of what is pending are all that a consumer group needs: done is what lies before
the index and is not pending. Redis Streams keep the same two things (last-delivered-id, and the pending entries list);
streams.py is the same log on them.
"""

import asyncio
import logging
import re
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count
from typing import Any, Self
from uuid import uuid4

import redis as blocking
from redis.asyncio import Redis
from redis.exceptions import RedisError

from asynckit.batcher import Batcher

from .counts import Counts
from .events import Claimed, Event
from .parked import Parked, ParkedEvents, lease_keys, parked_key
from .scripts import Scripts
from .views import Lag, Partition, Trimmed

LOOK_SECONDS = 1.0  # between two looks of an idle consumer that gets no hint
LARGEST = 1000  # events in one script: some milliseconds, in which Redis does nothing else
CONSUMERS = "eventlog:consumers"
BEGINNING, END = "beginning", "end"
LONGEST_PAUSE = 60.0  # seconds that one pause in the log can last; a longer one is several
DELAYS_SECONDS = 2 * 86_400

log = logging.getLogger(__name__)

_NAME = re.compile(r"[a-z0-9_-]{1,40}")


def delay_keys(consumer: str) -> tuple[str, str]:
    """Of the events that have failed and wait: when each is due, and how often it has failed."""
    return f"eventlog:due:{{{consumer}}}", f"eventlog:failures:{{{consumer}}}"


class Log(ABC):
    """What both logs have in common: ids, names, leases and parked events.

    All that asks Redis raises RedisError.
    """

    def __init__(self, redis: Redis, lease_seconds: float, owner: str = "") -> None:
        self.owner = owner or uuid4().hex
        """Names this process in its leases: no other process has ever had this name."""
        self.other: Log | None = None
        """The other log in the same Redis. Nobody reads it as long as this one is read."""
        self.limits: tuple[float, int] | None = None
        """After how many seconds and how many events a partition is sealed; None: never."""
        self._redis: Any = redis  # redis-py's types leave open whether answers are bytes; ours are
        self._scripts = Scripts(redis)
        self._lease_ms = int(lease_seconds * 1000)
        self._append = Batcher(self._append_many, LARGEST)
        self._commit = Batcher(self.commit_many, LARGEST)
        self._counts = Counts(redis, self._scripts)
        self._tokens = count(1)
        self._parked_events = ParkedEvents(redis, self._scripts, self.owner, self._lease_ms, self._tokens)
        self._registered: dict[str, float] = {}  # until when this process relies on it: time.monotonic()
        self._closing = False

    async def __aenter__(self) -> Self:
        if self.other is not None:
            await self._warn_of(self.other)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop_waiting()
        await self._counts.close()

    async def _warn_of(self, other: "Log") -> None:
        with suppress(RedisError, ValueError):  # those who claim say so; and bad data are no reason not to start
            if undone := await other.undone():
                log.warning(
                    "LOG was changed: %d events are left in the other log, where no worker handles them", undone
                )

    # Producers

    def append(self, event: Event, *, new: bool = False) -> asyncio.Future[str]:
        """Append it; the position that it has. An id that is in the log is not appended again: its position of then.

        That holds for REMEMBER_SECONDS after the first time. `new` saves the search for it: say so only of an id that
        was made for this very call. Appending once more after an error is always safe, without `new`.
        Raises ValueError for an id that is no word.
        """
        event.check_id()
        return self._append((event, new))

    @abstractmethod
    async def _append_many(self, items: Sequence[tuple[Event, bool]]) -> Sequence[str]: ...

    @abstractmethod
    async def end(self) -> str:
        """Where the log ends: all that is appended from now on has this position or a later one."""

    @abstractmethod
    async def check(self) -> None:
        """Write what changes nothing: only a Redis that takes events takes it."""

    # Consumers

    async def claim(self, consumer: str, limit: int, wait: float = 0.0) -> list[Claimed]:
        """Claim up to so many events for a consumer; when there is none, wait so many seconds for the first.

        In this order: parked ones that somebody wants again, those whose lease or pause has ended, new ones in the
        order of the log. Returns [] early after `stop_waiting`.
        """
        limit = min(limit, LARGEST)
        deadline = time.monotonic() + wait
        while True:
            await self._register(consumer)
            claimed = await self._parked_events.claim(consumer, limit) or await self._claim(consumer, limit)
            left = deadline - time.monotonic()
            if claimed or left <= 0 or self._closing:
                return claimed
            await self._wait(consumer, min(left, LOOK_SECONDS))

    @abstractmethod
    async def _claim(self, consumer: str, limit: int) -> list[Claimed]: ...

    @abstractmethod
    async def _wait(self, consumer: str, seconds: float) -> None:
        """Return when there may be something to claim, at the latest after so many seconds."""

    def stop_waiting(self) -> None:
        """This process is about to stop: no claim waits any more."""
        self._closing = True

    def commit(self, claimed: Claimed) -> asyncio.Future[bool]:
        """Its handler has ended well: it is done. False when the lease has become somebody else's."""
        return self._commit(claimed)

    async def commit_many(self, items: Sequence[Claimed]) -> Sequence[bool]:
        """The same for many at once, in one script for each partition."""
        done: dict[int, bool] = {}
        for keys, group in self._together(items):
            words = self._words(group)
            parked = [parked_key(group[0].consumer)] if group[0].parked else []
            reply = await self._scripts.run(
                self._script("commit", group[0]), [*keys, *parked], self.owner, words, group[0].consumer
            )
            done |= {id(claimed): bool(ours) for claimed, ours in zip(group, reply[1:], strict=True)}
            self._committed(group[0], pending=reply[0])
            self._counts.add(group[0].consumer, "handled", sum(reply[1:]))
        return [done[id(claimed)] for claimed in items]

    def count_unwanted(self, consumer: str, number: int) -> None:
        """So many of the events that this consumer has committed were none of its business."""
        self._counts.add(consumer, "unwanted", number)

    def _committed(self, claimed: Claimed, pending: int) -> None:
        """Called after a commit: so many are pending still where this one was."""
        return

    async def put_back(self, claimed: Claimed, pause: float, *, tried: bool = True) -> bool:
        """Let it be claimed again, by anybody, after so many seconds. Not `tried`: this attempt does not count.

        At most a minute, or a lease: what is due later counts as written before a clock was turned back. False when the
        lease has become somebody else's.
        """
        ours = await self._scripts.run(
            self._script("put_back", claimed),
            self._lease_keys(claimed),
            self.owner,
            self._member(claimed),
            f"{claimed.attempts} {claimed.token}",
            claimed.attempts if tried else claimed.attempts - 1,
            int(pause * 1000),
            claimed.consumer,
            self._lease_ms,
        )
        if ours and tried:
            self._counts.add(claimed.consumer, "retried", 1)
        return bool(ours)

    async def delay(self, claimed: Claimed, seconds: float, failures: int) -> bool:
        """As `put_back`, for any time. Until then `delays` says so to every worker that claims the event."""
        due, counts = delay_keys(claimed.consumer)
        when = await self.now() + seconds
        async with self._redis.pipeline(transaction=True) as both:
            both.zadd(due, {claimed.position: when}).hset(counts, claimed.position, failures)
            both.expire(due, DELAYS_SECONDS).expire(counts, DELAYS_SECONDS)
            await both.execute()
        return await self.put_back(claimed, min(seconds, LONGEST_PAUSE))

    async def delays(self, consumer: str, claimed: Sequence[Claimed]) -> dict[str, tuple[float, int]]:
        """For the positions of these: in how many seconds it is due, and how often it has failed."""
        if not claimed:
            return {}
        due, counts = delay_keys(consumer)
        positions = [one.position for one in claimed]
        async with self._redis.pipeline(transaction=False) as both:
            both.zmscore(due, positions).hmget(counts, positions)
            dues, failures = await both.execute()
        now = await self.now()
        found = zip(positions, dues, failures, strict=True)
        return {position: (when - now, int(failed or 0)) for position, when, failed in found if when is not None}

    async def forget_delays(self, claimed: Sequence[Claimed]) -> None:
        """These are done."""
        if positions := [one.position for one in claimed if one.attempts > 1]:
            due, counts = delay_keys(claimed[0].consumer)
            async with self._redis.pipeline(transaction=False) as both:
                both.zrem(due, *positions).hdel(counts, *positions)
                await both.execute()

    async def next_attempt(self, consumer: str) -> float | None:
        """In how many seconds the next event that failed is handled again; None if none waits for that."""
        found = await self._redis.zrange(delay_keys(consumer)[0], 0, 0, withscores=True)
        return max(0.0, float(found[0][1]) - await self.now()) if found else None

    def extend(self, client: blocking.Redis, held: Sequence[Claimed]) -> int:
        """The heartbeat, for a thread with a client of its own. How many of these leases are somebody else's by now."""
        extended = 0
        for keys, group in self._together(held):
            name, more = self._script("extend", group[0]), (self._words(group), group[0].consumer)
            extended += self._scripts.run_blocking(client, name, keys, self.owner, self._lease_ms, *more)
        return len(held) - extended

    def _together(self, items: Sequence[Claimed]) -> Iterator[tuple[tuple[str, ...], list[Claimed]]]:
        """What can be in one script: of one consumer, and with its leases in the same keys."""
        groups: dict[tuple[str, tuple[str, ...]], list[Claimed]] = defaultdict(list)
        for claimed in items:
            groups[claimed.consumer, self._lease_keys(claimed)].append(claimed)
        for (_, keys), group in groups.items():
            yield keys, group

    def _lease_keys(self, claimed: Claimed) -> tuple[str, ...]:
        return lease_keys(claimed.consumer) if claimed.parked else self._leases(claimed)

    @abstractmethod
    def _leases(self, claimed: Claimed) -> tuple[str, ...]:
        """The keys that know who holds what."""

    def _member(self, claimed: Claimed) -> str:
        """What the event is called there."""
        return claimed.position

    def _words(self, group: Sequence[Claimed]) -> str:
        """Which events, and which claims of them: what scripts ask before they believe that a lease is ours."""
        return " ".join([f"{self._member(claimed)} {claimed.attempts} {claimed.token}" for claimed in group])

    def _script(self, name: str, claimed: Claimed) -> str:
        return name

    @abstractmethod
    async def replay(self, consumer: str, start: str | float) -> None:
        """Move this consumer's cursor, to "beginning", "end", a time (unix seconds) or the position of an event.

        What it has claimed is claimed anew; what it handles in this very moment it may handle once more.
        Other consumers notice nothing. Raises ValueError for a position that is not in the log.
        """

    # What is given up

    async def park(self, claimed: Claimed, reason: str) -> bool:
        """Park the event for this consumer. False when another worker has the lease."""
        keys, words = self._lease_keys(claimed), self._words([claimed])
        more = (self._lease_ms, words, claimed.consumer)
        if not await self._scripts.run(self._script("extend", claimed), keys, self.owner, *more):
            return False
        # Park first, then commit: a worker that dies in between leaves an event that is parked a second time.
        await self._parked_events.put(claimed, reason)
        reply = await self._scripts.run(self._script("commit", claimed), keys, self.owner, words, claimed.consumer)
        self._committed(claimed, pending=reply[0])
        self._counts.add(claimed.consumer, "given_up", int(reply[1]))
        return bool(reply[1])

    async def parked(self, consumer: str, limit: int = 1000) -> list[Parked]:
        """The events that this consumer has given up, the newest first, at most 1000."""
        return await self._parked_events.list(consumer, limit)

    async def unpark(self, consumer: str, *positions: str) -> int:
        """Let parked events be handled again, all of them or these; a success removes them."""
        return await self._parked_events.unpark(consumer, *positions)

    async def discard(self, consumer: str, *positions: str) -> int:
        """Throw parked events away, all of them or these, for good; the log itself keeps them until it is trimmed."""
        return await self._parked_events.discard(consumer, *positions)

    # What there is

    @abstractmethod
    async def partitions(self, newest: int | None = None) -> list[Partition]:
        """In the order of the log; only so many of the newest."""

    async def lag(self, consumer: str) -> Lag:
        """Where this consumer stands; one that has never been there stands at the beginning. Raises ValueError."""
        _check_name(consumer)
        if not await self._has_place(consumer):  # looking at a consumer does not register it: it may have left
            await self._begin(consumer)
        return await self._lag(consumer)

    @abstractmethod
    async def _lag(self, consumer: str) -> Lag: ...

    @abstractmethod
    async def trim(
        self, older_than: float | None = None, larger_than: int | None = None, *, force: bool = False
    ) -> Trimmed:
        """Delete old events: those older than so many seconds, and the oldest while all are more than so many bytes.

        Whole partitions, never the open one, and never an event that some consumer has not done, unless by `force`:
        a consumer that is overtaken finds out how much it has lost.
        """

    async def now(self) -> float:
        """Unix seconds, by Redis's clock."""
        seconds, microseconds = await self._redis.time()
        return float(seconds) + float(microseconds) / 1e6

    async def consumers(self) -> list[str]:
        names = await self._redis.smembers(CONSUMERS)
        return sorted(name.decode(errors="replace") for name in names)

    async def undone(self) -> int:
        """How many events the slowest of those who read this log has not done; all, when nobody has begun."""
        lags = [await self._lag(name) for name in await self._readers()]
        if not lags:
            return sum(partition.length for partition in await self.partitions())
        return max(lag.waiting + lag.pending for lag in lags)

    async def _readers(self) -> list[str]:
        """The consumers that have a place in this log: a name may be known from the other one only."""
        return [name for name in await self.consumers() if await self._has_place(name)]

    @abstractmethod
    async def _has_place(self, consumer: str) -> bool: ...

    async def _register(self, consumer: str) -> None:
        """Add it to the consumers. Another process may remove it at any time, so this is repeated every second."""
        now = time.monotonic()
        if now < self._registered.get(consumer, 0.0):
            return
        _check_name(consumer)
        if consumer not in self._registered:
            await self._begin(consumer)
        await self._scripts.run("register", [CONSUMERS], consumer)
        self._registered[consumer] = now + LOOK_SECONDS

    async def leave(self, consumer: str) -> None:
        """Remove it from the consumers: the log keeps nothing for it. Its last leases end when they are trimmed."""
        self._registered.pop(consumer, None)
        await self._redis.srem(CONSUMERS, consumer)
        await self._redis.delete(*delay_keys(consumer))

    @abstractmethod
    async def _begin(self, consumer: str) -> None:
        """Place the cursor of a consumer at the beginning of the log, unless it has one."""

    async def _figures(self, consumer: str) -> dict[str, int]:
        """What has been counted, for `Lag`."""
        parked = await self._redis.hlen(parked_key(consumer))
        return {**await self._counts.of(consumer), "parked": int(parked)}


def _check_name(consumer: str) -> None:
    if not _NAME.fullmatch(consumer):
        raise ValueError("a consumer's name is of small letters, digits, _ and -, at most 40")
