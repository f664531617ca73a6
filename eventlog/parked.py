"""Parked events (a dead-letter queue): events that a consumer gave up, with the reason. List, retry or discard them.

Each entry has a copy of its event, so a trim of the log does not delete it. Both logs use the same parked events.

    eventlog:parked:{NAME}        hash   position -> an entry: a line of JSON {reason, attempts, at, alone}, then the
                                  event as in the log
    eventlog:parked_order:{NAME}  zset   position -> ms when it was parked; to read the newest entries
    eventlog:pending:{NAME}       zset   position -> ms when it may be claimed: events that are to be retried
    eventlog:holders:{NAME}       hash   position -> "attempts token owner", as in a partition
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import orjson
from redis.asyncio import Redis

from asynckit.bytes_redis import bytes_redis

from .counts import counts_key
from .events import Claimed
from .scripts import Scripts

LOOK_SECONDS = 1.0  # retries are rare, so not every claim looks for them
STEP = 1000  # events in one script


@dataclass(frozen=True, slots=True)
class Parked:
    position: str
    reason: str
    attempts: int
    at: float
    """When it was parked: unix seconds."""
    element: bytes
    again: bool
    """It is to be retried, and its handler has not succeeded yet."""


class ParkedEvents:
    def __init__(self, redis: Redis, scripts: Scripts, owner: str, lease_ms: int, tokens: Iterator[int]) -> None:
        self._redis = bytes_redis(redis)
        self._scripts = scripts
        self._owner = owner
        self._lease_ms = lease_ms
        self._tokens = tokens
        self._looks: dict[str, float] = {}

    async def put(self, claimed: Claimed, reason: str) -> bool:
        """For a retried event, this ends its lease too: False when another process has the lease."""
        at, consumer = time.time(), claimed.consumer
        keys = [parked_key(consumer), order_key(consumer), counts_key(consumer)]
        keys += lease_keys(consumer) if claimed.parked else ()
        holder = f"{claimed.attempts} {claimed.token} {self._owner}"
        words = claimed.position, parked_entry(claimed, reason, at), int(at * 1000), holder
        return bool(await self._scripts.run("park", keys, *words))

    async def claim(self, consumer: str, limit: int) -> list[Claimed]:
        """Claim events that are to be retried. Looks at most once a second; `look_now` makes the next call look."""
        now = time.monotonic()
        if now < self._looks.get(consumer, 0.0):
            return []
        self._looks[consumer] = now + LOOK_SECONDS
        keys = [*lease_keys(consumer), parked_key(consumer)]
        token = next(self._tokens)
        alone, *found = await self._scripts.run("claim_parked", keys, self._owner, self._lease_ms, limit, token)
        if alone:  # there may be others
            self._looks.pop(consumer)
        until, words = now + self._lease_ms / 1000, iter(found)
        return [
            Claimed(
                *(consumer, position.decode(), attempts, entry.partition(b"\n")[2], until),
                alone=bool(alone),
                parked=True,
                token=token,
            )
            for position, attempts, entry in zip(words, words, words, strict=True)
        ]

    def look_now(self) -> None:
        self._looks.clear()

    async def list(self, consumer: str, limit: int) -> list[Parked]:
        """The newest first."""
        keys = [parked_key(consumer), order_key(consumer), lease_keys(consumer)[0]]
        words = iter(await self._scripts.run("list_parked", keys, min(limit, STEP)))
        return [
            _parked(position, entry, bool(again)) for position, entry, again in zip(words, words, words, strict=True)
        ]

    async def unpark(self, consumer: str, *positions: str) -> int:
        keys = [*lease_keys(consumer), parked_key(consumer)]
        return await self._in_steps("unpark", keys, consumer, positions)

    async def discard(self, consumer: str, *positions: str) -> int:
        keys = [*lease_keys(consumer), parked_key(consumer), order_key(consumer)]
        return await self._in_steps("discard", keys, consumer, positions)

    async def _in_steps(self, script: str, keys: Sequence[str], consumer: str, positions: Sequence[str]) -> int:
        """For these events or for all. Goes from the newest to the oldest: new entries shift no older ones."""
        if positions:
            return int(await self._scripts.run(script, keys, *positions))
        found, end = 0, int(await self._redis.zcard(order_key(consumer)))
        while end > 0:
            begin = max(0, end - STEP)
            step = await self._redis.zrange(order_key(consumer), begin, end - 1)
            found += int(await self._scripts.run(script, keys, *step)) if step else 0
            end = begin
        return found


def parked_entry(claimed: Claimed, reason: str, at: float) -> bytes:
    """`alone` makes each retry alone: the event may have killed its workers."""
    about = {"reason": reason, "attempts": claimed.attempts, "at": at, "alone": claimed.alone}
    return orjson.dumps(about) + b"\n" + claimed.element


def parked_key(consumer: str) -> str:
    return f"eventlog:parked:{{{consumer}}}"


def order_key(consumer: str) -> str:
    return f"eventlog:parked_order:{{{consumer}}}"


def lease_keys(consumer: str) -> tuple[str, str]:
    return f"eventlog:pending:{{{consumer}}}", f"eventlog:holders:{{{consumer}}}"


def _parked(position: bytes, entry: bytes, again: bool) -> Parked:
    """Shows bad data as an entry instead of raising an error: you need this list when something is wrong."""
    line, _, element = entry.partition(b"\n")
    try:
        about = orjson.loads(line)
        reason, attempts, at = str(about["reason"]), int(about["attempts"]), float(about["at"])
    except (ArithmeticError, ValueError, KeyError, TypeError):
        reason, attempts, at = "this entry cannot be read", 0, 0.0
    return Parked(position.decode(errors="replace"), reason, attempts, at, element, again)
