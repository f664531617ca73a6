"""Scans all keys: which exist, and which have the wrong type."""

import re
from dataclasses import dataclass, field

from redis.asyncio import Redis

from asynckit.bytes_redis import bytes_redis, redis_time

from ..keys import Keys
from ..show import bytes_as_text

SCAN_COUNT = 1000

TYPES = {
    "queues": "set",
    "failed": "list",
    "workers": "set",
    "workers:heartbeat": "hash",
    "delayed_queue_schedule": "zset",
    "persistent_schedules": "hash",
    "pause-all-workers": "string",
    "resque_scheduler_leader_lock": "string",
    "stat:processed": "string",
    "stat:failed": "string",
    "py:leases": "zset",
    "py:reaping": "hash",
    "py:attempts": "hash",
    "py:crashes": "hash",
    "py:counted": "hash",
    "py:seen": "set",
    "py:seen:before": "set",
    "py:unreadable": "list",
    "py:totals": "hash",
    "py:written": "string",
    "py:cron": "hash",
    "py:guarded": "string",
}
FAMILIES = {
    "queue:": "list",
    "timestamps:": "set",
    "worker:": "string",
    "stat:": "string",
    "py:paused:": "string",
    "py:throttle:": "string",
    "py:unique:": "string",
    "py:chart:": "hash",
}


@dataclass(slots=True)
class Seen:
    """The keys that the scan has found, without the namespace."""

    queues: set[bytes] = field(default_factory=set)
    delayed: set[int] = field(default_factory=set)
    workers: set[bytes] = field(default_factory=set)
    """The ids of workers with a record or a start date."""
    pings: set[bytes] = field(default_factory=set)
    timestamps: list[bytes] = field(default_factory=list)
    wrong: dict[bytes, tuple[str, str]] = field(default_factory=dict)
    """Key -> its type, the type that it should have."""


class Examination:
    """What the checks read: Redis, the keys that the scan found, and the time by Redis's clock."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self.client = redis
        self.redis = bytes_redis(redis)
        self.keys = keys
        self.seen = Seen()
        self.now = 0.0
        self._prefix = f"{keys.namespace}:".encode()

    async def walk(self) -> None:
        self.now = float(int(await redis_time(self.redis)))
        self.seen = Seen()
        pattern = re.sub(rb"([*?\[\]\\])", rb"\\\1", self._prefix) + b"*"
        cursor = 0
        while True:
            cursor, found = await self.redis.scan(cursor, match=pattern, count=SCAN_COUNT)
            pipeline = self.redis.pipeline(transaction=False)
            for key in found:
                pipeline.type(key)
            for key, kind in zip(found, await pipeline.execute(), strict=True):
                _classify(self.seen, key[len(self._prefix) :], kind.decode())
            if not cursor:
                return

    def is_sound(self, key: str) -> bool:
        """Whether the key has the right type or does not exist."""
        return key.encode().removeprefix(self._prefix) not in self.seen.wrong

    async def members(self, key: str) -> set[bytes]:
        return set(await self.redis.smembers(key)) if self.is_sound(key) else set()

    async def fields(self, key: str) -> dict[bytes, bytes]:
        return dict(await self.redis.hgetall(key)) if self.is_sound(key) else {}

    async def scores(self, key: str) -> dict[bytes, float]:
        return dict(await self.redis.zrange(key, 0, -1, withscores=True)) if self.is_sound(key) else {}

    def key(self, *parts: bytes) -> bytes:
        """A key as in keys.py, from any bytes."""
        return self._prefix + b":".join(parts)

    def name(self, *parts: bytes) -> str:
        """The same key as a string."""
        return bytes_as_text(self.key(*parts))


def _classify(seen: Seen, name: bytes, kind: str) -> None:
    """Sort a key into `seen` by its name and type."""
    wanted = TYPES.get(name.decode(errors="replace"))
    if wanted is None:
        if name.startswith(b"delayed:"):
            wanted = "list" if is_second(name[8:]) else None  # resque-scheduler stores a hash under this prefix
        else:
            wanted = next((kind for family, kind in FAMILIES.items() if name.startswith(family.encode())), None)
    if wanted is None:
        return
    if kind not in (wanted, "none"):
        seen.wrong[name] = (kind, wanted)
    elif name.startswith(b"queue:"):
        seen.queues.add(name[6:])
    elif name.startswith(b"delayed:"):
        seen.delayed.add(int(name[8:]))
    elif name.startswith(b"timestamps:"):
        seen.timestamps.append(name[11:])
    elif name.startswith(b"worker:ping:"):
        seen.pings.add(name[12:])
    elif name.startswith(b"worker:"):
        seen.workers.add(name[7:].removesuffix(b":started"))


def is_second(name: bytes) -> bool:
    return name.isdigit() and len(name) <= 15
