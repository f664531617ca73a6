"""The one new idea: an immutable log of events in Redis, which any number of consumers read, each at its own pace.

The log is a chain of partitions, each open for PARTITION_SECONDS or PARTITION_EVENTS. The number of a partition is when
it was opened, in ms since 1970 by the clock of Redis, and at least one more than that of the partition before. The
position of an event is `partition-index`: positions only grow, and that of an event never changes.

Why nobody can be skipped: events go to the one partition of the chain that is open. When its time is over, one script
*seals* it: no event can be added any more, and the number of the next partition is written into it, once and for all.
There is no other way to the next partition than through that seal, for producers and for consumers alike. So a
producer that comes late, with whatever it believes the time to be, finds the seal and follows it; and a consumer that
leaves a partition leaves nothing behind that could still grow. No clock has a part in this, not even Redis's own: if
it is turned back, the open partition stays open for longer.

Who may die when. The producer, before or after its script: the event is in the log or not, and the same append again
finds the id. Between seal and opening: whoever comes next opens it. A consumer's process, at any moment: what it
had claimed is claimed by another when the lease has ended. Redis, as far as it has written its file.

The keys. All keys of one partition have its number N in braces, so that Redis Cluster keeps them in one place, and
spreads the partitions; each script has the keys of one partition only, or of one consumer. NAME is a consumer.

    eventr:partitions            zset    the partitions there are, by number: where a producer finds the last one
    eventr:partitions:{N}        list    the events: "<ms when appended> <the event as JSON>"
    eventr:state:{N}             hash    first (how many events the log has before it), bytes, last (ms of an append);
                                         once sealed next, length, sealed (ms); once its events are deleted trimmed
    eventr:ids:{N}               hash    id of an event -> index; goes REMEMBER_SECONDS after the seal
    eventr:counters:{N}          hash    NAME -> "epoch index": all before this index has been claimed at least once
    eventr:pending:{N}:NAME      zset    index -> ms when it may be claimed again: claimed, and not yet committed
    eventr:holders:{N}:NAME      hash    index -> "attempts owner": who holds it; nobody while it waits for another try

    eventr:consumers             set     the names
    eventr:cursor:{NAME}         hash    partition, first, index, epoch: all before this partition is done. A replay
                                         begins a new epoch; what a partition knows of an older one counts no more
    eventr:counts:{NAME}         hash    handled, retried, overtaken: for people; a kill may lose the last of them
    eventr:parked:{NAME}         hash    position -> what was given up: a line of JSON (why), then the event
    eventr:pending:{NAME}, eventr:holders:{NAME}    as above, for parked events that are being replayed

    eventr:appended              channel a hint that there is something new. It may get lost: all look once a second

The index of a partition and the set of what is pending are all that a consumer group needs: done is what lies before
the index and is not pending. Redis Streams keep the same two things (last-delivered-id, and the pending entries list);
streams.py is the same log on them.
"""

import asyncio
import math
import re
import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Self
from uuid import uuid4

import orjson
import redis as blocking
from redis.asyncio import Redis
from redis.exceptions import RedisError

from common.batcher import Batcher

from .scripts import Scripts

PARTITION_EVENTS = 10_000  # at most in one partition: a place in the middle of a list must not be far from its ends
REMEMBER_SECONDS = 60  # so long, at least, an append of the same id is found out
TOMBSTONE_SECONDS = 86_400
LOOK_SECONDS = 1.0  # between two looks of an idle consumer that gets no hint
HINTS = "eventr:appended"
CONSUMERS = "eventr:consumers"
COUNT_SECONDS = 0.1  # between something done and its count
LARGEST = 1000  # events in one script: a millisecond or two, in which Redis does nothing else

BEGINNING, END = "beginning", "end"

_ID = re.compile(r"[!-~]{1,250}")  # printable ASCII without spaces
_NAME = re.compile(r"[a-z0-9_-]{1,40}")
_POSITION = re.compile(r"(\d{1,20})-(\d{1,20})", re.ASCII)


class BadEvent(ValueError):
    """What stands in the log here is no event."""


@dataclass(frozen=True, slots=True)
class Event:
    """A past fact: `name` says what has happened. `at` is when it came into the log: unix seconds, Redis's clock."""

    id: str
    name: str
    data: dict[str, Any]
    at: float = 0.0

    def to_json(self) -> bytes:
        return orjson.dumps({"id": self.id, "name": self.name, "data": self.data})


class Claimed(NamedTuple):
    """An event that a consumer holds for the time of a lease. Only this claim can commit it."""

    consumer: str
    position: str
    attempts: int
    """How often it has been claimed, this time included."""
    element: bytes
    """As it stands in the log."""
    until: float
    """When the lease ends unless it is extended: seconds, time.monotonic()."""
    alone: bool = False
    """It has outlived two owners: handle nothing else meanwhile, for it may be what killed them."""
    parked: bool = False
    """It comes from the shelf of parked events and not from the log."""

    def event(self) -> Event:
        """Raises BadEvent."""
        stamp, _, text = self.element.partition(b" ")
        try:
            members = orjson.loads(text)
            return Event(members["id"], members["name"], members["data"], at=int(stamp) / 1000)
        except (ValueError, KeyError, TypeError) as error:
            raise BadEvent(f"not an event: {type(error).__name__}: {error}") from None


@dataclass(frozen=True, slots=True)
class Partition:
    """One stretch of the log. `opened` and `last` (the last append) are unix seconds by Redis's clock."""

    number: str
    opened: float
    last: float
    first: int
    length: int
    bytes: int
    """Of the events alone; lists need about a tenth more."""
    sealed: bool
    trimmed: bool = False


@dataclass(frozen=True, slots=True)
class Lag:
    """Where a consumer stands."""

    position: str
    """Its cursor: all before it is done."""
    waiting: int
    """Events that nobody has claimed yet."""
    pending: int
    """Claimed and not committed: they are being handled, or wait for another try."""
    parked: int
    oldest_seconds: float
    """Since the event at the cursor was appended; 0 if there is none."""
    handled: int = 0
    retried: int = 0
    overtaken: int = 0
    """Events that were trimmed before this consumer had done them."""


@dataclass(frozen=True, slots=True)
class Parked:
    position: str
    reason: str
    attempts: int
    at: float
    """When it was given up: unix seconds."""
    element: bytes
    again: bool
    """Somebody wants it to be handled again, and that has not ended yet."""


@dataclass(frozen=True, slots=True)
class Trimmed:
    events: int
    partitions: int
    kept_for: str | None
    """The consumer without which more would have gone."""


class Log(ABC):
    """What both logs have in common: ids, names, leases, and the shelf of parked events.

    All that asks Redis raises RedisError.
    """

    def __init__(self, redis: Redis, lease_seconds: float, owner: str = "") -> None:
        self.owner = owner or uuid4().hex
        """Names this process in its leases: no other process has ever had this name."""
        self._redis: Any = redis  # redis-py's types leave open whether answers are bytes; ours are
        self._scripts = Scripts(redis)
        self._lease_ms = int(lease_seconds * 1000)
        self._append = Batcher(self._append_many, LARGEST)
        self._commit = Batcher(self.commit_many, LARGEST)
        self._known_consumers: set[str] = set()
        self._shelf_looks: dict[str, float] = {}
        self._closing = False
        self._counted: Counter[tuple[str, str]] = Counter()
        self._telling: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop_waiting()
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait([self._telling])
            await self._tell_counts_now()

    # Producers

    def append(self, event: Event, *, new: bool = False) -> asyncio.Future[str]:
        """Append it; the position that it has. An id that is in the log is not appended again: its position of then.

        That holds for REMEMBER_SECONDS after the first time. `new` saves the search for it: say so only of an id that
        was made for this very call. Appending once more after an error is always safe, without `new`.
        Raises ValueError for an id with spaces or anything else that is not printable ASCII.
        """
        if not _ID.fullmatch(event.id):
            raise ValueError("an event's id is printable ASCII without spaces, at most 250 characters")
        return self._append((event, new))

    @abstractmethod
    async def _append_many(self, items: Sequence[tuple[Event, bool]]) -> Sequence[str]: ...

    @abstractmethod
    async def check(self) -> None:
        """Write what changes nothing: only a Redis that takes events takes it."""

    # Consumers

    async def claim(self, consumer: str, limit: int, wait: float = 0.0) -> list[Claimed]:
        """Claim up to so many events for a consumer; when there is none, wait so many seconds for the first.

        In this order: parked ones that somebody wants again, those whose lease or pause has ended, new ones in the
        order of the log. Returns [] early after `stop_waiting`.
        """
        await self._register(consumer)
        limit = min(limit, LARGEST)
        deadline = time.monotonic() + wait
        while True:
            claimed = await self._claim_parked(consumer, limit) or await self._claim(consumer, limit)
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
        done: dict[tuple[str, str], bool] = {}
        for keys, group in self._by_keys(items).items():
            words = " ".join([f"{self._member(claimed)} {claimed.attempts}" for claimed in group])
            shelf = [_shelf(group[0].consumer)] if group[0].parked else []
            reply = await self._scripts.run(
                self._script("commit", group[0]), [*keys, *shelf], self.owner, words, group[0].consumer
            )
            done |= {(c.consumer, c.position): bool(ours) for c, ours in zip(group, reply[1:], strict=True)}
            self._committed(group[0], pending=reply[0])
            self._count(group[0].consumer, "handled", sum(reply[1:]))
        return [done[claimed.consumer, claimed.position] for claimed in items]

    def _committed(self, claimed: Claimed, pending: int) -> None:
        """Called after a commit: so many are pending still where this one was."""
        return

    async def put_back(self, claimed: Claimed, pause: float, *, tried: bool = True) -> bool:
        """Let it be claimed again, by anybody, after so many seconds. Not `tried`: this attempt does not count.

        False when the lease has become somebody else's.
        """
        ours = await self._scripts.run(
            self._script("put_back", claimed),
            self._lease_keys(claimed),
            self.owner,
            self._member(claimed),
            claimed.attempts,
            claimed.attempts if tried else claimed.attempts - 1,
            int(pause * 1000),
            claimed.consumer,
            self._lease_ms,
        )
        if ours and tried:
            self._count(claimed.consumer, "retried", 1)
        return bool(ours)

    def extend(self, client: blocking.Redis, held: Sequence[Claimed]) -> int:
        """The heartbeat, for a thread with a client of its own. How many of these leases are somebody else's by now."""
        extended = 0
        for keys, group in self._by_keys(held).items():
            words = " ".join([f"{self._member(claimed)} {claimed.attempts}" for claimed in group])
            name = self._script("extend", group[0])
            extended += self._scripts.run_blocking(
                client, name, keys, self.owner, self._lease_ms, words, group[0].consumer
            )
        return len(held) - extended

    def _by_keys(self, items: Sequence[Claimed]) -> dict[tuple[str, ...], list[Claimed]]:
        groups: dict[tuple[str, ...], list[Claimed]] = defaultdict(list)
        for claimed in items:
            groups[self._lease_keys(claimed)].append(claimed)
        return groups

    def _lease_keys(self, claimed: Claimed) -> tuple[str, ...]:
        return _shelf_leases(claimed.consumer) if claimed.parked else self._leases(claimed)

    @abstractmethod
    def _leases(self, claimed: Claimed) -> tuple[str, ...]:
        """The keys that know who holds what."""

    def _member(self, claimed: Claimed) -> str:
        """What the event is called there."""
        return claimed.position

    def _script(self, name: str, claimed: Claimed) -> str:
        return name

    @abstractmethod
    async def replay(self, consumer: str, start: str | float) -> None:
        """Move this consumer's cursor, to "beginning", "end", a time (unix seconds) or the position of an event.

        What it has claimed is claimed anew; what it handles in this very moment it may handle once more.
        Other consumers notice nothing. Raises ValueError for a position that is not in the log.
        """

    # Parked events: the same shelf for both logs. It has a copy of the event, so trimming does not empty it.

    async def park(self, claimed: Claimed, reason: str) -> bool:
        """Give it up for this consumer: onto the shelf, out of the way. False when the lease is somebody else's."""
        keys, words = self._lease_keys(claimed), f"{self._member(claimed)} {claimed.attempts}"
        if not await self._scripts.run(
            self._script("extend", claimed), keys, self.owner, self._lease_ms, words, claimed.consumer
        ):
            return False
        # First onto the shelf, then out of the log: who dies in between leaves an event that is given up once more.
        about = {"reason": reason, "attempts": claimed.attempts, "at": time.time()}
        entry = orjson.dumps(about) + b"\n" + claimed.element
        await self._redis.hset(_shelf(claimed.consumer), claimed.position, entry)
        reply = await self._scripts.run(self._script("commit", claimed), keys, self.owner, words, claimed.consumer)
        self._committed(claimed, pending=reply[0])
        return bool(reply[1])

    async def _claim_parked(self, consumer: str, limit: int) -> list[Claimed]:
        """Looks once a second, or after a hint: few are there, and seldom."""
        now = time.monotonic()
        if now < self._shelf_looks.get(consumer, 0.0):
            return []
        self._shelf_looks[consumer] = now + LOOK_SECONDS
        keys = [*_shelf_leases(consumer), _shelf(consumer)]
        words = iter(await self._scripts.run("claim_parked", keys, self.owner, self._lease_ms, limit))
        until = now + self._lease_ms / 1000
        return [
            Claimed(consumer, position.decode(), attempts, entry.partition(b"\n")[2], until, parked=True)
            for position, attempts, entry in zip(words, words, words, strict=True)
        ]

    async def parked(self, consumer: str, limit: int = 1000) -> list[Parked]:
        """The events that this consumer has given up, the newest first."""
        entries = await self._redis.hgetall(_shelf(consumer))
        again = set(await self._redis.zrange(_shelf_leases(consumer)[0], 0, -1))
        found = [_parked(position, entry, position in again) for position, entry in entries.items()]
        return sorted(found, key=lambda parked: -parked.at)[:limit]

    async def unpark(self, consumer: str, *positions: str) -> int:
        """Let parked events be handled again, all of them or these; they leave the shelf when that went well."""
        keys = [*_shelf_leases(consumer), _shelf(consumer)]
        return int(await self._scripts.run("unpark", keys, *positions))

    # What there is

    @abstractmethod
    async def partitions(self, newest: int | None = None) -> list[Partition]:
        """In the order of the log; only so many of the newest."""

    async def lag(self, consumer: str) -> Lag:
        """Where this consumer stands; one that has never been there stands at the beginning. Raises ValueError."""
        await self._register(consumer)
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

    async def _now(self) -> float:
        """Unix seconds, by Redis's clock."""
        seconds, microseconds = await self._redis.time()
        return float(seconds) + float(microseconds) / 1e6

    async def consumers(self) -> list[str]:
        names = await self._redis.smembers(CONSUMERS)
        return sorted(name.decode(errors="replace") for name in names)

    async def _register(self, consumer: str) -> None:
        if consumer in self._known_consumers:
            return
        if not _NAME.fullmatch(consumer):
            raise ValueError("a consumer's name is of small letters, digits, _ and -, at most 40")
        await self._begin(consumer)
        await self._redis.sadd(CONSUMERS, consumer)
        self._known_consumers.add(consumer)

    @abstractmethod
    async def _begin(self, consumer: str) -> None:
        """Place the cursor of a consumer at the beginning of the log, unless it has one."""

    def _count(self, consumer: str, what: str, number: int) -> None:
        """Told to Redis a moment later, many together: it is for people, and must not make a commit slower."""
        if number:
            self._counted[consumer, what] += number
            if self._telling is None or self._telling.done():
                self._telling = asyncio.create_task(self._tell_counts())

    async def _tell_counts(self) -> None:
        await asyncio.sleep(COUNT_SECONDS)
        await self._tell_counts_now()

    async def _tell_counts_now(self) -> None:
        while self._counted:
            (consumer, what), number = self._counted.popitem()
            with suppress(RedisError):  # those who claim say so in the log
                await self._redis.hincrby(f"eventr:counts:{{{consumer}}}", what, number)

    async def _counts(self, consumer: str) -> dict[str, int]:
        counts = await self._redis.hgetall(f"eventr:counts:{{{consumer}}}")
        parked = await self._redis.hlen(_shelf(consumer))
        named = {name: _number(counts.get(name.encode())) for name in ("handled", "retried", "overtaken")}
        return {**named, "parked": parked}


def _shelf(consumer: str) -> str:
    return f"eventr:parked:{{{consumer}}}"


def _shelf_leases(consumer: str) -> tuple[str, str]:
    return f"eventr:pending:{{{consumer}}}", f"eventr:holders:{{{consumer}}}"


def _parked(position: bytes, entry: bytes, again: bool) -> Parked:
    """Bad data become a bad entry, not an error: the shelf is where one looks when something is wrong."""
    line, _, element = entry.partition(b"\n")
    try:
        about = orjson.loads(line)
        reason, attempts, at = str(about["reason"]), int(about["attempts"]), float(about["at"])
    except (ValueError, KeyError, TypeError):
        reason, attempts, at = "what was noted about this one cannot be read", 0, 0.0
    return Parked(position.decode(errors="replace"), reason, attempts, at, element, again)


def _number(text: bytes | None) -> int:
    try:
        return int(text or 0)
    except ValueError:
        return 0


def read_position(text: str) -> tuple[int, int]:
    """The two numbers of a position, "1764061234567-12". Raises ValueError."""
    found = _POSITION.fullmatch(text)
    if not found:
        raise ValueError("a position looks like 1764061234567-12")
    return int(found[1]), int(found[2])


def milliseconds(seconds: float) -> int:
    """The first whole one that is not before this time; of a time that a log has told, that very one."""
    return math.ceil(round(seconds * 1000, 3))
