"""Step 3, `group`: a consumer group of a Redis stream (XREADGROUP, XACK, XAUTOCLAIM), and no Lua.

Loses: nothing, and any number of workers share the work. Redis remembers which worker got which event. If a worker does
not acknowledge an event in time, another worker gets it and sends its email, possibly for the second time.
"""

import asyncio
import os
import secrets
import socket
from contextlib import suppress
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from asynckit.redis_client import redis_client
from asynckit.tasks import end_tasks
from common.mail.emails import BadEmail, email_from_members
from common.mail.errors import SendError
from common.mail.mailer import Mailer
from common.mail.retry import may_retry
from common.mail.sender import PatientSender
from common.processes.steps import run_slots
from common.settings import Settings
from eventlog.streams import STREAM

from .talk import log

GROUP = "step:email"


class Worker:
    def __init__(self, settings: Settings, redis: Redis, sender: PatientSender) -> None:
        self._name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._lease_ms = int(settings.lease_seconds * 1000)
        self._domain = settings.id_domain
        self._sender = sender
        self._redis: Any = redis  # redis-py's types leave open whether answers are bytes; ours are
        self._held: set[bytes] = set()

    async def join(self) -> None:
        """Create the group at the beginning of the stream, unless it exists."""
        with suppress(ResponseError):  # BUSYGROUP: it exists
            await self._redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)

    async def work_one(self, slot: int) -> bool:
        """Handle the next event. Returns False at the end of the stream."""
        entries = await self._take_over() if slot == 0 else []
        if not entries:
            found = await self._redis.xreadgroup(GROUP, self._name, {STREAM: ">"}, count=1)
            entries = found[0][1] if found else []
        for position, fields in entries:
            self._held.add(position)
            try:
                if await self._handle(fields):
                    await self._redis.xack(STREAM, GROUP, position)  # only now, after the mail server's 250
            finally:
                self._held.discard(position)
        return bool(entries)

    async def _take_over(self) -> list[Any]:
        """Take over an event whose worker has not acknowledged or renewed it for the time of a lease."""
        answer = await self._redis.xautoclaim(STREAM, GROUP, self._name, self._lease_ms, count=1)
        return [entry for entry in answer[1] if entry[1]]

    async def _handle(self, fields: dict[bytes, bytes]) -> bool:
        """Returns False if the event must be tried again, which happens after the time of a lease."""
        try:
            event = orjson.loads(fields[b"e"])
            email = email_from_members({**event["data"], "id": event["id"]}, self._domain)
            await self._sender.send(email)
        except (BadEmail, SendError, KeyError, TypeError, ValueError) as error:
            log.error("failed: %s: %s", type(error).__name__, error)
            return not (isinstance(error, SendError) and may_retry(error))
        log.info("sent %s", email.id)
        return True

    async def extend(self) -> None:
        """The heartbeat: claim the events that this worker holds again, three times in a lease."""
        while True:
            await asyncio.sleep(self._lease_ms / 3000)
            with suppress(RedisError):
                if held := list(self._held):
                    await self._redis.xclaim(STREAM, GROUP, self._name, 0, held, justid=True)


async def work(settings: Settings) -> None:
    """Handle events until this process is stopped."""
    async with redis_client(settings.redis) as redis, Mailer(settings, patient=True) as mailer:
        sender = PatientSender(mailer, settings.emails_per_second)
        worker = Worker(settings, redis, sender)
        await worker.join()
        extending = asyncio.create_task(worker.extend())
        await run_slots(settings, worker.work_one)
        await end_tasks([extending])
        await sender.close()
