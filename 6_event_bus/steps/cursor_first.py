"""Step 1, `cursor_first`: one script reads the next event and moves the cursor, then the worker sends the email.

Loses: each email that a worker was sending when it was killed, because the cursor has already passed its event. Also
each event of a producer whose clock is late, because the producer appends it to a minute that the cursor has left.
"""

from typing import Any

from redis.asyncio import Redis

from asynckit.redis_client import redis_client
from common.mail.mailer import Mailer
from common.mail.sender import PatientSender
from common.processes.steps import run_slots
from common.settings import Settings

from .talk import CURSOR, LUA, PARTITIONS, handle


class Worker:
    def __init__(self, settings: Settings, redis: Redis, sender: PatientSender) -> None:
        self._domain = settings.id_domain
        self._sender = sender
        self._next: Any = redis.register_script((LUA / "next.lua").read_bytes())

    async def work_one(self, slot: int) -> bool:
        """Handle the next event. Returns False at the end of the log."""
        event = await self._read()
        if event is None:
            return False
        await handle(self._sender, self._domain, event)
        return True

    async def _read(self) -> Any:
        """The next event. It moves the cursor: from here until the mail server's 250, a kill loses the email."""
        return await self._next([PARTITIONS, CURSOR])


async def work(settings: Settings) -> None:
    """Handle events until this process is stopped."""
    async with redis_client(settings.redis) as redis, Mailer(settings, patient=True) as mailer:
        sender = PatientSender(mailer, settings.emails_per_second)
        worker = Worker(settings, redis, sender)
        await run_slots(settings, worker.work_one)
        await sender.close()
