"""What a consumer has done, in numbers: for people.

They are told to Redis a moment later, many together, so that no commit waits for them. What Redis refuses is told again
later; a kill, of this process or of Redis, may lose the last ones.

    eventlog:counts:{NAME}     hash   handled, unwanted (of these, what it had nothing to do with), retried, overtaken,
                               given_up (how often an event was parked)
"""

import asyncio
from collections import Counter, defaultdict
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, TimeoutError

from asynckit.tasks import background, end_tasks

from .scripts import Scripts

NAMES = ("handled", "unwanted", "retried", "overtaken", "given_up")
TELL_SECONDS = 0.005  # between something done and its count
AGAIN_SECONDS = 1.0  # between two tries to tell a Redis that refuses


class Counts:
    def __init__(self, redis: Redis, scripts: Scripts) -> None:
        self._redis: Any = redis
        self._scripts = scripts
        self._counted: defaultdict[str, Counter[str]] = defaultdict(Counter)  # by consumer
        self._telling: asyncio.Task[None] | None = None

    def add(self, consumer: str, name: str, number: int) -> None:
        if number:
            self._counted[consumer][name] += number
            if self._telling is None or self._telling.done():
                self._telling = background(self._tell_soon(), "telling the counts")

    async def _tell_soon(self) -> None:
        pause = TELL_SECONDS
        while self._counted:
            await asyncio.sleep(pause)
            pause = TELL_SECONDS if await self.tell() else AGAIN_SECONDS

    async def tell(self) -> bool:
        """As far as Redis takes it; the rest stays. Whether it has taken all."""
        taken = True
        for consumer in list(self._counted):
            counted = self._counted.pop(consumer, Counter())
            words = [word for name, number in counted.items() for word in (name, number)]
            try:
                await self._scripts.run("add", [_key(consumer)], *words)
            except TimeoutError:  # most probably Redis has it, and does it when it wakes up
                return False
            except RedisError:  # those who claim say so in the log
                self._counted[consumer].update(counted)
                taken = False
        return taken

    async def of(self, consumer: str) -> dict[str, int]:
        found = await self._redis.hgetall(_key(consumer))
        return {name: _number(found.get(name.encode())) for name in NAMES}

    async def close(self) -> None:
        if self._telling is not None:
            await end_tasks([self._telling])
            await self.tell()


def _key(consumer: str) -> str:
    return f"eventlog:counts:{{{consumer}}}"


def _number(text: bytes | None) -> int:
    """Rubbish counts as nothing."""
    try:
        return int(text or 0)
    except ValueError:
        return 0
