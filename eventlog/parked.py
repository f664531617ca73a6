"""Parked events: a consumer has given them up, with the reason. You can list, retry or discard them.

It has a copy of each event, so trimming the log does not empty it. Both logs have the same parked events.

    eventlog:parked:{NAME}        hash   position -> a line of JSON {reason, attempts, at}, then the event as in the log
    eventlog:parked_order:{NAME}  zset   position -> ms when it was parked: a page reads the newest few by it
    eventlog:pending:{NAME}       zset   position -> ms when it may be claimed: the event is to be handled again
    eventlog:holders:{NAME}       hash   position -> "attempts token owner", as in a partition
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from redis.asyncio import Redis

from .events import Claimed
from .scripts import Scripts

LOOK_SECONDS = 1.0  # few are wanted again, and seldom
STEP = 1000  # events in one script


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


class ParkedEvents:
    def __init__(self, redis: Redis, scripts: Scripts, owner: str, lease_ms: int, tokens: Iterator[int]) -> None:
        self._redis: Any = redis
        self._scripts = scripts
        self._owner = owner
        self._lease_ms = lease_ms
        self._tokens = tokens
        self._looks: dict[str, float] = {}

    async def put(self, claimed: Claimed, reason: str) -> None:
        at = time.time()
        entry = orjson.dumps({"reason": reason, "attempts": claimed.attempts, "at": at}) + b"\n" + claimed.element
        keys = [parked_key(claimed.consumer), order_key(claimed.consumer)]
        await self._scripts.run("park", keys, claimed.position, entry, int(at * 1000))

    async def claim(self, consumer: str, limit: int) -> list[Claimed]:
        """Those that are wanted again. Looks once a second, or after `look_now`."""
        now = time.monotonic()
        if now < self._looks.get(consumer, 0.0):
            return []
        self._looks[consumer] = now + LOOK_SECONDS
        keys = [*lease_keys(consumer), parked_key(consumer)]
        token = next(self._tokens)
        words = iter(await self._scripts.run("claim_parked", keys, self._owner, self._lease_ms, limit, token))
        until = now + self._lease_ms / 1000
        return [
            Claimed(consumer, position.decode(), attempts, entry.partition(b"\n")[2], until, parked=True, token=token)
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
        """For these; or for all, from the newest back: so none is left out when others come and go meanwhile."""
        if positions:
            return int(await self._scripts.run(script, keys, *positions))
        found, end = 0, int(await self._redis.zcard(order_key(consumer)))
        while end > 0:
            begin = max(0, end - STEP)
            step = await self._redis.zrange(order_key(consumer), begin, end - 1)
            found += int(await self._scripts.run(script, keys, *step)) if step else 0
            end = begin
        return found


def parked_key(consumer: str) -> str:
    return f"eventlog:parked:{{{consumer}}}"


def order_key(consumer: str) -> str:
    return f"eventlog:parked_order:{{{consumer}}}"


def lease_keys(consumer: str) -> tuple[str, str]:
    return f"eventlog:pending:{{{consumer}}}", f"eventlog:holders:{{{consumer}}}"


def _parked(position: bytes, entry: bytes, again: bool) -> Parked:
    """Bad data becomes a bad entry, not an error: this list is what you look at when something is wrong."""
    line, _, element = entry.partition(b"\n")
    try:
        about = orjson.loads(line)
        reason, attempts, at = str(about["reason"]), int(about["attempts"]), float(about["at"])
    except (ArithmeticError, ValueError, KeyError, TypeError):
        reason, attempts, at = "what was noted about this one cannot be read", 0, 0.0
    return Parked(position.decode(errors="replace"), reason, attempts, at, element, again)
