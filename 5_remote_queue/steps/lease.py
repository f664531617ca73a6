"""Step 3, `lease`: move a job to a record that is the worker's until a deadline, send its email, then acknowledge it.

Loses: nothing, whether a killed worker restarts or not. A heartbeat extends the deadline. After the deadline, any
worker puts the job back into the queue. An email that was sent but not acknowledged is sent twice.
The keys and records are those of the full design, so workers of both kinds can finish each other's jobs.
"""

import asyncio
import os
import secrets
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from asynckit.redis_client import redis_client
from asynckit.tasks import background, end_tasks
from common.mail.mailer import Mailer
from common.mail.sender import PatientSender
from common.processes.steps import SLOTS, run_slots
from common.settings import Settings

from ..jobs import QUEUE
from .job import failed_record, send

JOBS = f"resque:queue:{QUEUE}"  # list of jobs, the oldest at the head
FAILED = "resque:failed"  # list of the jobs that failed, each with its error
WORKERS = "resque:workers"  # set of the ids of all slots of all workers
LEASES = "resque:py:leases"  # sorted set: the id of a slot -> its deadline (ms, by Redis's clock)
RECORD = "resque:worker:{}"  # string: {"token": …, "queue": …, "worker": …, "payload": the job that this slot works on}
LUA = Path(__file__).parent / "lua"


class Worker:
    def __init__(self, settings: Settings, redis: Redis, sender: PatientSender) -> None:
        self._name = f"{socket.gethostname()}.{secrets.token_hex(4)}:{os.getpid()}"  # never used twice
        self._ids = [f"{self._name}+{slot}:{QUEUE}" for slot in range(SLOTS)]
        self._heads = [b""] * SLOTS  # the record of each slot without its payload: it holds the token of the claim
        self._lease_ms = int(settings.lease_seconds * 1000)
        self._domain = settings.id_domain
        self._lua: Any = {path.stem: redis.register_script(path.read_bytes()) for path in LUA.glob("*.lua")}
        self._sender = sender

    async def work_one(self, slot: int) -> bool:
        """Work on the next job. Returns False if the queue is empty."""
        raw = await self._claim(slot)
        if raw is None:
            return False
        try:
            await send(self._sender, self._domain, raw)
        except Exception as error:
            await self._settle(slot, raw, failed_record(raw, self._ids[slot], error))
        else:
            await self._settle(slot, raw)
        return True

    async def _claim(self, slot: int) -> Any:
        if slot == 0:
            await self.take_back()
        head = f'{{"token":"{secrets.token_hex(8)}","queue":"{QUEUE}","worker":"{self._name}+{slot}"'
        keys = [JOBS, RECORD.format(self._ids[slot]), LEASES, WORKERS]
        if (record := await self._lua["claim"](keys, [self._ids[slot], self._lease_ms, head])) is None:
            return None
        self._heads[slot], _, raw = record[:-1].partition(b',"payload":')
        return raw

    async def _settle(self, slot: int, raw: bytes, failed: str = "") -> None:
        """Remove the job from the record. That needs this claim's token, because another slot may have taken over."""
        await self._lua["settle"]([RECORD.format(self._ids[slot]), FAILED], [self._heads[slot], failed])

    async def take_back(self) -> None:
        """Put back the jobs of all workers whose lease has ended."""
        await self._lua["reap"]([LEASES, WORKERS])

    async def beat(self) -> None:
        """The heartbeat: extend the deadline of all slots, three times in a lease."""
        while True:
            await asyncio.sleep(self._lease_ms / 3000)
            with suppress(RedisError):
                await self._lua["beat"]([LEASES], [self._lease_ms, *self._ids])


async def work(settings: Settings) -> None:
    """Take jobs from the queue until this process is stopped."""
    async with redis_client(settings.redis) as redis, Mailer(settings, patient=True) as mailer:
        sender = PatientSender(mailer, settings.emails_per_second)
        worker = Worker(settings, redis, sender)
        beating = background(worker.beat(), "heartbeat")
        await run_slots(settings, worker.work_one)
        await end_tasks([beating])
        await sender.close()
