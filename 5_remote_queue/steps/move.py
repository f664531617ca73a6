"""Step 2, `move`: move a job to the worker's own list, send its email, then remove the job from that list.

Loses: nothing, if a worker of the same name restarts and continues with its list. Otherwise the jobs in its list are
never sent, because no other worker can know whether that worker is dead or slow.
"""

import os
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
TAKEN = "resque:step:move:{}"  # list of the jobs that the worker of this name is sending


class Worker:
    def __init__(self, settings: Settings, redis: Redis, sender: PatientSender) -> None:
        self._name = os.environ.get("WORKER_NAME") or socket.gethostname()  # two workers need two names
        self._taken = TAKEN.format(self._name)
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
        return await self._redis.lmove(JOBS, self._taken, "LEFT", "RIGHT")

    async def _settle(self, slot: int, raw: bytes, failed: str = "") -> None:
        """Remove the job from this worker's list: only now, after the mail server's 250, or with its error."""
        async with self._redis.pipeline(transaction=True) as both:
            if failed:
                both.rpush(FAILED, failed)
            await both.lrem(self._taken, 1, raw).execute()

    async def take_back(self) -> None:
        """Put the jobs that this worker was sending when it was killed back to the head of the queue, in order."""
        while await self._redis.lmove(self._taken, JOBS, "RIGHT", "LEFT"):
            pass


async def work(settings: Settings) -> None:
    """Take jobs from the queue until this process is stopped."""
    async with redis_client(settings.redis) as redis, Mailer(settings, patient=True) as mailer:
        sender = PatientSender(mailer, settings.emails_per_second)
        worker = Worker(settings, redis, sender)
        await worker.take_back()
        await run_slots(settings, worker.work_one)
        await sender.close()
