"""Your file: a worker of strategy 5, as the step `pop`. It sends one email after the other.

exercise:queue          list   the waiting jobs, the oldest at the head: {"id", "to", "subject", "text"}
exercise:working:NAME   list   yours to use: the job on which the worker NAME works
"""

import asyncio
import json
import os
from typing import Any

from asynckit.redis_client import redis_client
from common.mail.emails import Email
from common.mail.mailer import Mailer
from common.processes.process import run
from common.settings import read_settings

QUEUE = "exercise:queue"
WORKING = "exercise:working:{}"


class Worker:
    def __init__(self, redis: Any, name: str) -> None:
        self._redis = redis
        self._mine = WORKING.format(name)

    async def start(self) -> None:
        """Called once, before the first job is taken."""

    async def take(self) -> bytes | None:
        """The next job, or None if there is none."""
        raw: bytes | None = await self._redis.lpop(QUEUE)
        return raw

    async def done(self, raw: bytes) -> None:
        """Called when the mail server has accepted the email of this job."""


async def work() -> None:
    settings = read_settings()
    async with redis_client(settings.redis) as redis, Mailer(settings, patient=True) as mailer:
        worker = Worker(redis, os.environ["WORKER_NAME"])
        await worker.start()
        print("ready", flush=True)
        while True:
            if (raw := await worker.take()) is None:
                await asyncio.sleep(0.02)
                continue
            await mailer.send(Email(**json.loads(raw)))
            await worker.done(raw)


if __name__ == "__main__":
    run(work(), until_stopped=False)
