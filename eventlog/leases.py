"""Leases: which process holds which event, and until when.

A claim gives a process a lease. The process then commits the event, puts it back, delays it or parks it, and each of
these ends the lease. Only the process that holds the lease can do that: every claim has a token, and each script
compares it first.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import count
from uuid import uuid4

import redis as blocking
from redis.asyncio import Redis

from asynckit.batcher import Batcher
from asynckit.bytes_redis import bytes_redis

from .counts import Counts
from .delays import Delays
from .events import Claimed
from .parked import ParkedEvents, lease_keys, parked_key
from .scripts import Scripts

LARGEST = 1000  # events in one script, which takes a few milliseconds; Redis serves no other client meanwhile
LONGEST_PAUSE = 60.0  # seconds; `put_back` takes no longer pause, `delay` repeats it


class Leases(ABC):
    """The part of a log that ends and renews leases. Every method that calls Redis raises RedisError."""

    def __init__(self, redis: Redis, lease_seconds: float, owner: str = "", ack_replicas: int = 0) -> None:
        self.owner = owner or uuid4().hex
        """Identifies this process in its leases. No other process has ever had this name."""
        self._redis = bytes_redis(redis)
        self._scripts = Scripts(redis, ack_replicas=ack_replicas)
        self._lease_ms = int(lease_seconds * 1000)
        self._tokens = count(1)
        self._counts = Counts(redis, self._scripts)
        self._delays = Delays(redis)
        self._parked_events = ParkedEvents(redis, self._scripts, self.owner, self._lease_ms, self._tokens)
        self._commit = Batcher(self.commit_many, LARGEST)

    def commit(self, claimed: Claimed) -> asyncio.Future[bool]:
        """Mark the event as done, after its handler has succeeded. False when another process has the lease."""
        return self._commit(claimed)

    async def commit_many(self, items: Sequence[Claimed]) -> Sequence[bool]:
        """Commit several events, with one script for each partition."""
        done: dict[int, bool] = {}
        for keys, group in self._grouped(items):
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
        """Count committed events that this consumer's handler did not ask for."""
        self._counts.add(consumer, "unwanted", number)

    def _committed(self, claimed: Claimed, pending: int) -> None:
        """Called after a commit. `pending`: how many events of the same partition still have leases."""
        return

    async def put_back(self, claimed: Claimed, pause: float, *, tried: bool = True) -> bool:
        """End the lease, so that any worker can claim the event after `pause` seconds. False when the lease is lost.

        `pause` must not be longer than LONGEST_PAUSE, or than a lease if that is longer: a script that finds a later
        time assumes that the clock was turned back. With `tried=False` this attempt is not counted.
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
            int(claimed.alone and not tried),
        )
        if ours and tried:
            self._counts.add(claimed.consumer, "retried", 1)
        return bool(ours)

    async def delay(self, claimed: Claimed, seconds: float, failures: int) -> bool:
        """Put the event back for any time. A worker that claims it earlier learns from `delays` that it is not due."""
        await self._delays.add(claimed, seconds, failures)
        return await self.put_back(claimed, min(seconds, LONGEST_PAUSE))

    async def delays(self, consumer: str, claimed: Sequence[Claimed]) -> dict[str, tuple[float, int]]:
        """For each of these positions that is delayed: the seconds until it is due, and how often it has failed."""
        return await self._delays.of(consumer, claimed)

    async def forget_delays(self, claimed: Sequence[Claimed]) -> None:
        """Forget the delays of these events, which are done."""
        await self._delays.remove(claimed)

    async def next_attempt(self, consumer: str) -> float | None:
        """Seconds until the next delayed event is due; None if no event is delayed."""
        return await self._delays.next_attempt(consumer)

    def extend(self, client: blocking.Redis, held: Sequence[Claimed]) -> int:
        """Renew these leases: the heartbeat calls this in its own thread, with its own client.

        Returns how many of the leases this process has lost.
        """
        extended = 0
        for keys, group in self._grouped(held):
            name, more = self._script("extend", group[0]), (self._words(group), group[0].consumer)
            extended += self._scripts.run_blocking(client, name, keys, self.owner, self._lease_ms, *more)
        return len(held) - extended

    async def park(self, claimed: Claimed, reason: str) -> bool:
        """Park the event for this consumer. False when another process has the lease."""
        if claimed.parked:
            return await self._parked_events.put(claimed, reason)
        keys, words = self._lease_keys(claimed), self._words([claimed])
        more = (self._lease_ms, words, claimed.consumer)
        if not await self._scripts.run(self._script("extend", claimed), keys, self.owner, *more):
            return False
        # Park first, then commit: if the worker dies in between, the next one parks the event again.
        await self._parked_events.put(claimed, reason)
        reply = await self._scripts.run(self._script("commit", claimed), keys, self.owner, words, claimed.consumer)
        self._committed(claimed, pending=reply[0])
        return bool(reply[1])

    def _grouped(self, items: Sequence[Claimed]) -> Iterator[tuple[tuple[str, ...], list[Claimed]]]:
        """Group the events that one script can process: same consumer, and leases in the same keys."""
        groups: dict[tuple[str, tuple[str, ...]], list[Claimed]] = defaultdict(list)
        for claimed in items:
            groups[claimed.consumer, self._lease_keys(claimed)].append(claimed)
        for (_, keys), group in groups.items():
            yield keys, group

    def _lease_keys(self, claimed: Claimed) -> tuple[str, ...]:
        return lease_keys(claimed.consumer) if claimed.parked else self._leases(claimed)

    @abstractmethod
    def _leases(self, claimed: Claimed) -> tuple[str, ...]:
        """The keys that hold this event's lease."""

    def _member(self, claimed: Claimed) -> str:
        """The event's name within these keys."""
        return claimed.position

    def _words(self, group: Sequence[Claimed]) -> str:
        """The events and their tokens, as the scripts compare them with the current leases."""
        return " ".join([f"{self._member(claimed)} {claimed.attempts} {claimed.token}" for claimed in group])

    def _script(self, name: str, claimed: Claimed) -> str:
        """The script that does this for this event."""
        return name
