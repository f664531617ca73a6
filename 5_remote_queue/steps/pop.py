"""Step 1, `pop`: remove a job from the queue, then send its email. Ruby's and Node's workers do the same.

Loses: every email that a worker was sending when it was killed. The job was only in that worker's memory.
"""

import socket
from typing import Any

from redis.asyncio import Redis

from asynckit.bytes_redis import bytes_redis
from asynckit.redis_client import redis_client
from common.mail.mailer import Mailer
from common.mail.sender import PatientSender
from common.processes.steps import run_slots
from common.settings import Settings

from ..jobs import QUEUE
from .job import failed_record, send

JOBS = f"resque:queue:{QUEUE}"  # list of jobs, the oldest at the head
FAILED = "resque:failed"  # list of the jobs that failed, each with its error


class Worker:
    def __init__(self, settings: Settings, redis: Redis, sender: PatientSender) -> None:
        self._name = socket.gethostname()
        self._domain = settings.id_domain
        self._redis = bytes_redis(redis)
        self._sender = sender

    async def work_one(self, slot: int) -> bool:
        """Work on the next job. Returns False if the queue is empty."""
        raw = await self._claim(slot)
        if raw is None:
            return False
        try:
            await send(self._sender, self._domain, raw)
        except Exception as error:
            await self._settle(slot, raw, failed_record(raw, self._name, error))
        else:
            await self._settle(slot, raw)
        return True

    async def _claim(self, slot: int) -> Any:
        return await self._redis.lpop(JOBS)  # from here until the 250, the job is only in memory: a kill loses it

    async def _settle(self, slot: int, raw: bytes, failed: str = "") -> None:
        if failed:
            await self._redis.rpush(FAILED, failed)


async def work(settings: Settings) -> None:
    """Take jobs from the queue until this process is stopped."""
    async with redis_client(settings.redis) as redis, Mailer(settings, patient=True) as mailer:
        sender = PatientSender(mailer, settings.emails_per_second)
        worker = Worker(settings, redis, sender)
        await run_slots(settings, worker.work_one)
        await sender.close()
