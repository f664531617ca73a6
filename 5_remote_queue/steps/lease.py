"""Step 3, `lease`: a job moves into the worker's record, which belongs to the worker until a deadline.

A heartbeat extends the deadline. After the deadline, any worker puts the job back into the queue. So no email is lost,
whether a killed worker restarts or not. An email that was sent but not acknowledged is sent twice.
The keys and records are those of the full design, so workers of both kinds can finish each other's jobs.
"""

import os
import secrets
import socket
from pathlib import Path
from typing import Any

import redis as blocking
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from asynckit.heartbeat import Heartbeat
from asynckit.redis_client import blocking_redis_client, redis_client
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
        self._lease_ms = int(settings.lease_seconds * 1000)
        self._domain = settings.id_domain
        self._redis: Any = redis  # its types say that answers may be str
        self._sender = sender
        self._claim, self._settle, self._reap = (
            redis.register_script((LUA / f"{name}.lua").read_bytes()) for name in ("claim", "settle", "reap")
        )

    def beat(self, client: blocking.Redis, new: int = 0) -> None:
        """Extend the deadline of all slots. The heartbeat's thread calls it."""
        client.eval((LUA / "beat.lua").read_text(), 2, LEASES, WORKERS, self._lease_ms, new, *self._ids)

    async def work_one(self, slot: int) -> bool:
        """Work on the next job. Returns False if the queue is empty. Raises LeaseLost."""
        if slot == 0:
            await self._reap(keys=[LEASES, WORKERS])
        token = secrets.token_hex(8)
        head = f'{{"token":"{token}","queue":"{QUEUE}","worker":"{self._name}+{slot}"'
        try:
            record = await self._claim([JOBS, RECORD.format(self._ids[slot]), LEASES], [self._ids[slot], head])
        except ResponseError as error:
            raise LeaseLost if str(error) == "LOST" else error from None
        if record is None:
            return False
        head, _, raw = record[:-1].partition(b',"payload":')
        try:
            await send(self._sender, self._domain, raw)
        except Exception as error:
            await self._settled(slot, head, failed_record(raw, self._ids[slot], error))
        else:
            await self._settled(slot, head)
        return True

    async def _settled(self, slot: int, head: bytes, failed: str = "") -> None:
        """Remove the job from the record. That needs this claim's token, because another slot may have taken over."""
        await self._settle([RECORD.format(self._ids[slot]), FAILED], [head, failed])


class LeaseLost(Exception):
    """No heartbeat came in time, and other workers took over the jobs. The process restarts with a new name."""


async def work(settings: Settings) -> None:
    """Take jobs from the queue until this process is stopped."""
    async with redis_client(settings.redis) as redis, Mailer(settings, patient=True) as mailer:
        sender = PatientSender(mailer, settings.emails_per_second)
        worker = Worker(settings, redis, sender)
        with blocking_redis_client(settings.redis) as client:
            worker.beat(client, new=1)
            async with Heartbeat(lambda: worker.beat(client), settings.lease_seconds / 3):
                await run_slots(settings, worker.work_one)
        await sender.close()
