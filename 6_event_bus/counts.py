"""What a consumer has done, in numbers: for people.

They are told to Redis a moment later, many together, so that no commit waits for them; a kill may lose the last ones.

    eventr:counts:{NAME}     hash   handled, retried, overtaken
"""

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

NAMES = ("handled", "retried", "overtaken")
TELL_SECONDS = 0.005  # between something done and its count


class Counts:
    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis
        self._counted: Counter[tuple[str, str]] = Counter()
        self._telling: asyncio.Task[None] | None = None

    def add(self, consumer: str, name: str, number: int) -> None:
        if number:
            self._counted[consumer, name] += number
            if self._telling is None or self._telling.done():
                self._telling = asyncio.create_task(self._tell_soon())

    async def _tell_soon(self) -> None:
        await asyncio.sleep(TELL_SECONDS)
        await self.tell()

    async def tell(self) -> None:
        while self._counted:
            (consumer, name), number = self._counted.popitem()
            with suppress(RedisError):  # those who claim say so in the log
                await self._redis.hincrby(_key(consumer), name, number)

    async def of(self, consumer: str) -> dict[str, int]:
        found = await self._redis.hgetall(_key(consumer))
        return {name: _number(found.get(name.encode())) for name in NAMES}

    async def close(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait([self._telling])
            await self.tell()


def _key(consumer: str) -> str:
    return f"eventr:counts:{{{consumer}}}"


def _number(text: bytes | None) -> int:
    """Rubbish counts as nothing."""
    try:
        return int(text or 0)
    except ValueError:
        return 0
