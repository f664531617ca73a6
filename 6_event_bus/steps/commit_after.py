"""Step 2, `commit_after`: the worker reads some events, sends their emails, and only then moves the cursor.

Loses: nothing. After a kill, the restarted worker sends the emails of the same events again. But only one process can
work: two processes would read the same events, send every email twice, and move the cursor back and forth.
"""

import asyncio
from typing import Any

from redis.asyncio import Redis

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
        self._redis: Any = redis  # redis-py's types leave open whether answers are bytes; ours are

    async def work_one(self, slot: int) -> bool:
        """Handle the next events. Returns False at the end of the log."""
        partition, index = await self._cursor()
        events = await self._redis.lrange(f"{PARTITIONS}:{partition}", index, index + BATCH - 1)
        if not events:
            return await self._leave(partition)
        await asyncio.gather(*[handle(self._sender, self._domain, event) for event in events])
        await self._commit(partition, index + len(events))  # only now, after the mail server's 250s
        return True

    async def _cursor(self) -> tuple[int, int]:
        partition, index = await self._redis.hmget(CURSOR, "partition", "index")
        return int(partition or 0), int(index or 0)

    async def _commit(self, partition: int, index: int) -> None:
        await self._redis.hset(CURSOR, mapping={"partition": partition, "index": index})

    async def _leave(self, partition: int) -> bool:
        """Go to the next partition if there is one. Producers use Redis's clock, so they append no more to this one."""
        following = await self._redis.zrangebyscore(PARTITIONS, f"({partition}", "+inf", start=0, num=1)
        if following and await self._redis.llen(f"{PARTITIONS}:{partition}") == (await self._cursor())[1]:
            await self._commit(int(following[0]), 0)
        return bool(following)


async def work(settings: Settings) -> None:
    """Handle events until this process is stopped."""
    async with redis_client(settings.redis) as redis, Mailer(settings, patient=True) as mailer:
        sender = PatientSender(mailer, settings.emails_per_second)
        worker = Worker(settings, redis, sender)
        await run_slots(settings, worker.work_one, slots=1)
        await sender.close()
