"""The names of the consumers of a log. The log keeps events for each of them until it has handled them.

eventlog:consumers    set    the names
"""

import re
import time

from redis.asyncio import Redis

from asynckit.bytes_redis import bytes_redis

from .scripts import Scripts

CONSUMERS = "eventlog:consumers"
REGISTER_SECONDS = 1.0  # another process may remove a consumer at any time, so each claim registers it this often

_NAME = re.compile(r"[a-z0-9_-]{1,40}")


class Registration:
    def __init__(self, redis: Redis, scripts: Scripts) -> None:
        self._redis = bytes_redis(redis)
        self._scripts = scripts
        self._until: dict[str, float] = {}  # when each consumer must be registered again: time.monotonic()

    def known(self) -> list[str]:
        """The consumers that this process has registered and not removed."""
        return list(self._until)

    def is_due(self, consumer: str) -> bool:
        return time.monotonic() >= self._until.get(consumer, 0.0)

    async def add(self, consumer: str) -> None:
        now = time.monotonic()
        await self._scripts.run("register", [CONSUMERS], consumer)
        self._until[consumer] = now + REGISTER_SECONDS

    def forget(self, consumer: str) -> None:
        """Make the next claim register this consumer again: another process may have removed it."""
        self._until.pop(consumer, None)

    async def remove(self, consumer: str) -> None:
        self.forget(consumer)
        await self._redis.srem(CONSUMERS, consumer)

    async def names(self) -> list[str]:
        found = await self._redis.smembers(CONSUMERS)
        return sorted(name.decode(errors="replace") for name in found)


def check_name(consumer: str) -> None:
    """Raises ValueError."""
    if not _NAME.fullmatch(consumer):
        raise ValueError("a consumer's name must be 1 to 40 lowercase letters, digits, _ or -")
