"""Step 1, `pop`: remove a job from the queue, then send its email. Ruby's and Node's workers do the same.

Loses: every email that a worker was sending when it was killed. The job was only in that worker's memory.
"""

import socket
from typing import Any

from redis.asyncio import Redis

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
        self._redis: Any = redis  # its types say that answers may be str
        self._sender = sender

    async def work_one(self, slot: int) -> bool:
        """Work on the next job. Returns False if the queue is empty."""
        raw = await self._redis.lpop(JOBS)
        if raw is None:
            return False
        # From here until the mail server's 250, the job is only in memory: a kill loses it.
        try:
            await send(self._sender, self._domain, raw)
        except Exception as error:
            await self._fail(raw, error)
        return True

    async def _fail(self, raw: bytes, error: Exception) -> None:
        await self._redis.rpush(FAILED, failed_record(raw, self._name, error))


async def work(settings: Settings) -> None:
    """Take jobs from the queue until this process is stopped."""
    async with redis_client(settings.redis) as redis, Mailer(settings, patient=True) as mailer:
        sender = PatientSender(mailer, settings.emails_per_second)
        worker = Worker(settings, redis, sender)
        await run_slots(settings, worker.work_one)
        await sender.close()
