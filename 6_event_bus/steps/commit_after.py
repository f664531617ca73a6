"""Step 2, `commit_after`: the worker reads some events, sends their emails, and only then moves the cursor.

Loses: nothing. After a kill, the restarted worker sends the emails of the same events again. But only one process can
work: two processes would read the same events, send every email twice, and move the cursor back and forth.
"""

import asyncio
from typing import Any

from redis.asyncio import Redis

from asynckit.bytes_redis import bytes_redis
from asynckit.redis_client import redis_client
from common.mail.mailer import Mailer
from common.mail.sender import PatientSender
from common.processes.steps import run_slots
from common.settings import Settings

from .talk import CURSOR, PARTITIONS, handle

BATCH = 10  # events at a time


class Worker:
    def __init__(self, settings: Settings, redis: Redis, sender: PatientSender) -> None:
        self._domain = settings.id_domain
        self._sender = sender
        self._redis = bytes_redis(redis)

    async def work_one(self, slot: int) -> bool:
        """Handle the next events. Returns False at the end of the log."""
        position, events = await self._read(slot)
        if not events:
            return False
        await asyncio.gather(*[handle(self._sender, self._domain, event) for event in events])
        await self._commit(position)
        return True

    async def _read(self, slot: int) -> Any:
        """The position behind the next events, and the events."""
        partition, index = [int(number or 0) for number in await self._redis.hmget(CURSOR, "partition", "index")]
        while True:
            # In this order: once there is a next minute, producers append no more to this one, by Redis's clock.
            following = await self._redis.zrangebyscore(PARTITIONS, f"({partition}", "+inf", start=0, num=1)
            events = await self._redis.lrange(f"{PARTITIONS}:{partition}", index, index + BATCH - 1)
            if events or not following:
                return {"partition": partition, "index": index + len(events)}, events
            partition, index = int(following[0]), 0

    async def _commit(self, position: dict[str, int]) -> None:
        """Move the cursor: only now, after the mail server's 250s."""
        await self._redis.hset(CURSOR, mapping=position)


async def work(settings: Settings) -> None:
    """Handle events until this process is stopped."""
    async with redis_client(settings.redis) as redis, Mailer(settings, patient=True) as mailer:
        sender = PatientSender(mailer, settings.emails_per_second)
        worker = Worker(settings, redis, sender)
        await run_slots(settings, worker.work_one, slots=1)
        await sender.close()
