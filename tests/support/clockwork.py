"""Several schedulers on one Redis."""

import json
from typing import Any

from redis.asyncio import Redis

import resque
from resque import events, housekeeping, scripts
from resque import keys as keys_module
from tests.support.programs import a_name
from tests.support.servers import Valkey

Keys = keys_module.Keys


class Clockwork:
    """Several schedulers on one Redis, in the test's own namespace."""

    def __init__(self, redis: Redis, valkey: Valkey, *own: Any) -> None:
        self.redis = redis
        self.client: Any = valkey.client
        self.keys = Keys(a_name())
        self.scripts = scripts.Scripts(redis)
        self.housekeeping = housekeeping.Housekeeping(redis, self.scripts, self.keys, events.ignore)
        self.fired: list[Any] = []
        self.schedules = self.another(*own)

    def another(self, *own: Any) -> Any:
        return resque.Schedules(self.redis, self.scripts, self.keys, own, self.fired.append)

    async def lead(self) -> None:
        await self.housekeeping.promote()
        assert self.housekeeping.leader == "six-ways"

    def put(self, name: str, **members: Any) -> None:
        """Store a schedule as resque-scheduler does."""
        self.client.hset(self.keys.cron_schedules, name, json.dumps(members))

    def mark(self, name: str) -> int:
        """The last second for which it was enqueued."""
        return int(self.client.hget(self.keys.cron, name).split()[0])

    def set_back(self, name: str, seconds: int) -> None:
        """Change the mark as if `seconds` had passed."""
        second, kind = self.client.hget(self.keys.cron, name).split()
        self.client.hset(self.keys.cron, name, f"{int(second) - seconds} {kind}")
        self.client.hdel(self.keys.last_enqueued, name)

    def jobs(self, queue: str = "q") -> list[Any]:
        found: Any = self.client.lrange(self.keys.queue(queue), 0, -1)
        return [json.loads(raw) for raw in found]
