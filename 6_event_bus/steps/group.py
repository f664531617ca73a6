"""Step 3, `group`: a consumer group of a Redis stream (XREADGROUP, XACK, XAUTOCLAIM), and no Lua.

Loses: nothing, and any number of workers share the work. Redis remembers which worker got which event. If a worker does
not acknowledge an event in time, another worker gets it and sends its email, possibly for the second time.
"""

import asyncio
import secrets
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from asynckit.bytes_redis import bytes_redis
from asynckit.redis_client import redis_client
from asynckit.tasks import background, end_tasks
from common.mail.mailer import Mailer
from common.mail.sender import PatientSender
from common.processes.steps import run_slots
from common.settings import Settings
from eventlog.streams import STREAM

from .talk import handle

GROUP = "step:email"


class Worker:
    def __init__(self, settings: Settings, redis: Redis, sender: PatientSender) -> None:
        self._name = secrets.token_hex(8)  # of this consumer in the group
        self._lease_ms = int(settings.lease_seconds * 1000)
        self._held: set[bytes] = set()
        self._domain = settings.id_domain
        self._sender = sender
        self._redis = bytes_redis(redis)

    async def work_one(self, slot: int) -> bool:
        """Handle the next event. Returns False at the end of the stream."""
        position, events = await self._read(slot)
        if not events:
            return False
        done = await asyncio.gather(*[handle(self._sender, self._domain, event) for event in events])
        await self._commit(position, done=all(done))
        return True

    async def _read(self, slot: int) -> Any:
        """The position of the next event, and the event. First one whose worker has not renewed it for a lease."""
        entries: Any = []
        if slot == 0:
            _, entries, *_ = await self._redis.xautoclaim(STREAM, GROUP, self._name, self._lease_ms, count=1)
        if not entries and (found := await self._redis.xreadgroup(GROUP, self._name, {STREAM: ">"}, count=1)):
            [[_, entries]] = found
        taken = {position: [fields[b"e"]] for position, fields in entries if fields}  # else it is trimmed
        self._held.update(taken)
        return next(iter(taken.items()), ("", []))

    async def _commit(self, position: bytes, *, done: bool) -> None:
        """Acknowledge the event: only now, after the mail server's 250. If it is not done, it is tried again."""
        self._held.discard(position)
        if done:
            await self._redis.xack(STREAM, GROUP, position)

    async def extend(self) -> None:
        """The heartbeat: claim the events that this worker holds again, three times in a lease."""
        while True:
            await asyncio.sleep(self._lease_ms / 3000)
            with suppress(RedisError):  # raised also if it holds nothing
                await self._redis.xclaim(STREAM, GROUP, self._name, 0, list(self._held), justid=True)


async def work(settings: Settings) -> None:
    """Handle events until this process is stopped."""
    async with redis_client(settings.redis) as redis, Mailer(settings, patient=True) as mailer:
        sender = PatientSender(mailer, settings.emails_per_second)
        worker = Worker(settings, redis, sender)
        with suppress(ResponseError):  # BUSYGROUP: it exists
            await redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        extending = background(worker.extend(), "extending the events of this worker")
        await run_slots(settings, worker.work_one)
        await end_tasks([extending])
        await sender.close()
