"""Your file: a worker of strategy 5 that claims jobs under a lease. It sends one email after the other."""

import asyncio
import json

from leases import Leases

from asynckit.redis_client import redis_client
from common.mail.emails import Email
from common.mail.errors import SendError
from common.mail.mailer import Mailer
from common.processes.process import run
from common.settings import read_settings

IDLE_SECONDS = 0.05


class Worker:
    def __init__(self, leases: Leases, lease_seconds: float, mailer: Mailer) -> None:
        self._leases = leases
        self._lease_seconds = lease_seconds
        self._mailer = mailer

    async def work_one(self) -> bool:
        """Work on the next job. Returns False if none waits."""
        claimed = await self._leases.claim()
        if claimed is None:
            return False
        token, raw = claimed
        try:
            await self._mailer.send(Email(**json.loads(raw)))
        except SendError as error:
            print(f"not sent: {error}", flush=True)  # the lease will end, and the job is tried again
        else:
            await self._leases.done(token)
        return True


async def work() -> None:
    settings = read_settings()
    async with redis_client(settings.redis) as redis, Mailer(settings, patient=True) as mailer:
        worker = Worker(Leases(redis, settings.lease_seconds), settings.lease_seconds, mailer)
        print("ready", flush=True)
        while True:
            if not await worker.work_one():
                await asyncio.sleep(IDLE_SECONDS)


if __name__ == "__main__":
    run(work(), until_stopped=False)
