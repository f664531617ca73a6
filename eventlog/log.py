"""An immutable log of events in Redis, which any number of consumers read, each at its own pace.

The log is a chain of partitions. Each takes events for PARTITION_SECONDS or until it has PARTITION_EVENTS. The number
of a partition is the time at which it was opened, in ms since 1970 by Redis's clock, and always larger than that of the
partition before. The position of an event is `partition-index`. Positions only grow, and the position of an event never
changes.

Why no event can be skipped. Producers append to the one open partition of the chain. When its time is over, a script
*seals* it: the partition takes no more events, and the number of the next partition is written into it. The seal is the
only way to the next partition, for producers and for consumers. A producer that comes late, whatever its own clock
says, finds the seal and follows it. A consumer leaves a partition only after the seal, so the partition cannot grow
behind it. This does not depend on any clock, not even Redis's: if that is turned back, the open partition stays open
for longer. What remains of a trimmed partition is deleted after a day. So a producer that was suspended for more than
half a day between seal and opening looks for the end of the log again.

What a crash leaves. If a producer dies before or after its script, the event is in the log or it is not, and a repeated
append finds the id. If it dies between seal and opening, the next producer opens the partition. If a consumer's process
dies, another process claims its events when the lease has ended. Redis keeps what it has written to its file.

The keys. All keys of one partition have its number N in braces, so that Redis Cluster keeps them on one node and
spreads the partitions. Each script uses keys of one partition only, or of one consumer. NAME is a consumer. reader.py
says what a failover of one node can do to the chain.

    eventlog:partitions            zset    the numbers of the partitions; producers look for the last one here
    eventlog:partitions:{N}        list    the events: "<ms when appended> <the event as JSON>"
    eventlog:state:{N}             hash    first (how many events the log has before it), bytes, last (ms of the last
                                         append); after the seal next, length, sealed (ms); after a trim trimmed
    eventlog:ids:{N}               hash    id of an event -> index; expires REMEMBER_SECONDS after the seal
    eventlog:counters:{N}          hash    NAME -> "epoch index": every event before this index has been claimed
    eventlog:pending:{N}:NAME      zset    index -> ms when it may be claimed again: claimed and not committed
    eventlog:holders:{N}:NAME      hash    index -> "attempts token owner": which process holds it, by which claim;
                                         "attempts 0 " while it waits for a retry

    eventlog:cursor:{NAME}         hash    partition, first, index, epoch: every event before this partition is done.
                                         A replay starts a new epoch, and partitions ignore data of older epochs
    eventlog:written:{N}           string  written before each WAIT; expires
    eventlog:consumers             see registration.py
    eventlog:counts:{NAME}         see counts.py
    eventlog:due:{NAME}, eventlog:failures:{NAME}    see delays.py
    eventlog:parked:{NAME}, parked_order, pending and holders of {NAME}    see parked.py

    eventlog:appended              channel a hint that there are new events. A hint may be lost: consumers also look
                                         once a second

The claimed index and the set of pending events are all that a consumer group needs: an event is done if it lies before
the index and is not pending. Redis Streams keep the same two things (last-delivered-id and the pending entries list);
streams.py is the same log on Streams.
"""

import asyncio
import logging
import time
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

from redis.asyncio import Redis

from asynckit.batcher import Batcher
from asynckit.bytes_redis import redis_time
from asynckit.redis_client import CALL_ERRORS

from .events import Claimed, Event
from .leases import LARGEST, Leases
from .parked import Parked, parked_key
from .registration import Registration, check_name
from .views import Lag, Partition, Trimmed

LOOK_SECONDS = 1.0  # an idle consumer looks for events this often, even without a hint
BEGINNING, END = "beginning", "end"

log = logging.getLogger(__name__)


class Log(Leases):
    """The interface of every log, and what they have in common. Every method that calls Redis raises RedisError."""

    def __init__(self, redis: Redis, lease_seconds: float, owner: str = "", ack_replicas: int = 0) -> None:
        """With `ack_replicas`, an append returns when that many replicas have it, or raises TooFewReplicas."""
        super().__init__(redis, lease_seconds, owner, ack_replicas)
        self.other: Log | None = None
        """The other log in the same Redis. No worker reads it while this one is used."""
        self.limits: tuple[float, int] | None = None
        """A partition is sealed after this many seconds or events; None: never."""
        self._append = Batcher(self._append_many, LARGEST)
        self._registration = Registration(redis, self._scripts)
        self._closing = False

    async def __aenter__(self) -> Self:
        if self.other is not None:
            await self._warn_of(self.other)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop_waiting()
        await self._counts.close()

    async def _warn_of(self, other: "Log") -> None:
        # Neither error may prevent the start: claims log that Redis is down, and the other log may hold bad data.
        with suppress(*CALL_ERRORS, ValueError):
            if undone := await other.undone():
                log.warning(
                    "LOG was changed: %d events are left in the other log, where no worker handles them", undone
                )

    # Producers

    def append(self, event: Event, *, new: bool = False) -> asyncio.Future[str]:
        """Append an event and return its position. If the log has this id already, return the existing position.

        The log remembers an id for at least REMEMBER_SECONDS. So you can repeat the call after an error, without `new`.
        `new=True` skips the search for the id: use it only if you made the id for this call. Raises ValueError if the
        id has spaces, is too long or is not ASCII.
        """
        event.check_id()
        return self._append((event, new))

    @abstractmethod
    async def _append_many(self, items: Sequence[tuple[Event, bool]]) -> Sequence[str]: ...

    async def now(self) -> float:
        """Unix seconds, by Redis's clock."""
        return await redis_time(self._redis)

    @abstractmethod
    async def end(self) -> str:
        """The end of the log: every event that is appended from now on has this position or a later one."""

    @abstractmethod
    async def check(self) -> None:
        """Write something that changes no data. It fails when Redis would not take events either."""

    # Consumers

    async def claim(self, consumer: str, limit: int, wait: float = 0.0) -> list[Claimed]:
        """Claim up to `limit` events for a consumer. If there are none, wait up to `wait` seconds for the first.

        The order: parked events that are to be retried, events whose lease or pause has ended, new events in the order
        of the log. Returns [] early after `stop_waiting`. Raises ValueError for a bad name.
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
        """Return when there may be something to claim, after `seconds` at the latest."""

    def stop_waiting(self) -> None:
        """Make every `claim` of this process return at once, because the process is about to stop."""
        self._closing = True

    @abstractmethod
    async def replay(self, consumer: str, start: str | float) -> None:
        """Move the consumer's cursor to "beginning", "end", a time (unix seconds) or the position of an event.

        The consumer loses its leases, so an event that it is handling now may be handled twice. Other consumers are not
        affected. Raises ValueError for a position that is not in the log.
        """

    # Registration

    async def consumers(self) -> list[str]:
        return await self._registration.names()

    async def leave(self, consumer: str) -> None:
        """Remove a consumer: the log keeps no events for it. Its last leases are deleted with their partitions."""
        await self._registration.remove(consumer)
        await self._delays.clear(consumer)

    async def _register(self, consumer: str) -> None:
        if not self._registration.is_due(consumer):
            return
        check_name(consumer)
        if consumer not in self._registration.known():
            await self._begin(consumer)
        await self._registration.add(consumer)

    @abstractmethod
    async def _begin(self, consumer: str) -> None:
        """Place the consumer's cursor at the beginning of the log, unless it has a cursor."""

    @abstractmethod
    async def _has_place(self, consumer: str) -> bool: ...

    async def _readers(self) -> list[str]:
        """The consumers that have a cursor in this log: some names may belong to the other log."""
        return [name for name in await self.consumers() if await self._has_place(name)]

    # Parked events

    async def parked(self, consumer: str, limit: int = 1000) -> list[Parked]:
        """The events that this consumer has parked, the newest first, at most 1000."""
        return await self._parked_events.list(consumer, limit)

    async def unpark(self, consumer: str, *positions: str) -> int:
        """Retry these parked events, or all without `positions`. An event stays parked until its handler succeeds."""
        return await self._parked_events.unpark(consumer, *positions)

    async def discard(self, consumer: str, *positions: str) -> int:
        """Delete these parked events, or all without `positions`. The log itself keeps them until it is trimmed."""
        return await self._parked_events.discard(consumer, *positions)

    # Inspection and retention

    @abstractmethod
    async def partitions(self, newest: int | None = None) -> list[Partition]:
        """The partitions in the order of the log; with `newest`, only that many of the last ones."""

    async def lag(self, consumer: str) -> Lag:
        """Where this consumer is; a consumer without a cursor is at the beginning. Raises ValueError for a bad name."""
        check_name(consumer)
        if not await self._has_place(consumer):  # do not register it: it may have left
            await self._begin(consumer)
        return await self._lag(consumer)

    @abstractmethod
    async def _lag(self, consumer: str) -> Lag: ...

    async def _figures(self, consumer: str) -> dict[str, int]:
        """The counts, as `Lag` names them."""
        parked = await self._redis.hlen(parked_key(consumer))
        return {**await self._counts.of(consumer), "parked": int(parked)}

    async def undone(self) -> int:
        """How many events the slowest consumer of this log has not handled; all events if it has no consumer."""
        lags = [await self._lag(name) for name in await self._readers()]
        if not lags:
            return sum(partition.length for partition in await self.partitions())
        return max(lag.waiting + lag.pending for lag in lags)

    @abstractmethod
    async def trim(
        self, older_than: float | None = None, larger_than: int | None = None, *, force: bool = False
    ) -> Trimmed:
        """Delete events older than `older_than` seconds, and the oldest ones while the log has more bytes than allowed.

        Deletes whole partitions and never the open one. Keeps events that a consumer has not handled, unless `force`;
        then the consumer logs and counts how many events it has lost.
        """
