"""A failed list."""

import json
from dataclasses import dataclass
from typing import Any

from resque import failed as failed_module

NotThere, CannotRequeue = failed_module.NotThere, failed_module.CannotRequeue

PAYLOAD = '{"class":"sendEmail","args":[1]}'


@dataclass
class Failures:
    """The test's own failed list."""

    redis: Any
    keys: Any
    failed: Any

    async def fill(self, *records: str | bytes) -> None:
        await self.redis.rpush(self.keys.failed, *records)

    async def texts(self, key: str | None = None) -> list[bytes]:
        texts: list[bytes] = await self.redis.lrange(key or self.keys.failed, 0, -1)
        return texts

    async def queued(self, queue: str = "q") -> list[bytes]:
        return await self.texts(self.keys.queue(queue))


def record(error: object = "no such user", payload: str = PAYLOAD, **more: Any) -> str:
    """A record as Ruby writes it, with this payload unchanged."""
    members = {"exception": "Refused", "error": error, "backtrace": ["a", "b"], "worker": "h:1:q", "queue": "q"} | more
    date = json.dumps(members.pop("failed_at", "2026/11/21 07:39:33 UTC"))
    return f'{{"failed_at":{date},"payload":{payload},{json.dumps(members)[1:]}'
