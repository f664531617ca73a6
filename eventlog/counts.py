"""How many events each consumer has handled, retried and so on, for the page and `/stats`.

The counts are written to Redis a moment later, many at a time, so that no commit waits for them. Counts that Redis
refuses are written later. If this process or Redis is killed, the last ones may be lost. Only `given_up` is exact:
park.lua counts it.

    eventlog:counts:{NAME}     hash   handled, unwanted (how many of these the handler does not ask for), retried,
                               overtaken, given_up (how often an event was parked; a replay of a parked
                               event does not count again)
"""

import asyncio
from collections import Counter, defaultdict

from redis.asyncio import Redis
from redis.exceptions import TimeoutError

from asynckit.bytes_redis import bytes_redis
from asynckit.redis_client import CALL_ERRORS
from asynckit.tasks import background, end_tasks

from .scripts import Scripts

NAMES = ("handled", "unwanted", "retried", "overtaken", "given_up")
WRITE_SECONDS = 0.005  # counts gather for this long
RETRY_SECONDS = 1.0  # the pause after Redis has refused counts


class Counts:
    def __init__(self, redis: Redis, scripts: Scripts) -> None:
        self._redis = bytes_redis(redis)
        self._scripts = scripts
        self._counted: defaultdict[str, Counter[str]] = defaultdict(Counter)  # by consumer
        self._writing: asyncio.Task[None] | None = None

    def add(self, consumer: str, name: str, number: int) -> None:
        if number:
            self._counted[consumer][name] += number
            if self._writing is None or self._writing.done():
                self._writing = background(self._write_soon(), "writing the counts")

    async def _write_soon(self) -> None:
        pause = WRITE_SECONDS
        while self._counted:
            await asyncio.sleep(pause)
            pause = WRITE_SECONDS if await self.write() else RETRY_SECONDS

    async def write(self) -> bool:
        """Write all counts, and keep those that Redis refuses. Returns whether Redis has taken all."""
        taken = True
        for consumer in list(self._counted):
            counted = self._counted.pop(consumer, Counter())
            words = [word for name, number in counted.items() for word in (name, number)]
            try:
                await self._scripts.run("add", [counts_key(consumer)], *words)
            except TimeoutError:  # Redis has most likely received the counts: writing them again would count twice
                return False
            except CALL_ERRORS:  # claims log that Redis is down
                self._counted[consumer].update(counted)
                taken = False
        return taken

    async def of(self, consumer: str) -> dict[str, int]:
        found = await self._redis.hgetall(counts_key(consumer))
        return {name: _number(found.get(name.encode())) for name in NAMES}

    async def close(self) -> None:
        if self._writing is not None:
            await end_tasks([self._writing])
            await self.write()


def counts_key(consumer: str) -> str:
    return f"eventlog:counts:{{{consumer}}}"


def _number(text: bytes | None) -> int:
    """0 for invalid data."""
    try:
        return int(text or 0)
    except ValueError:
        return 0
