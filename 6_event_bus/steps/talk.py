"""The log of the first two steps, as in the talk: a list of events for each minute.

    talk:partitions     sorted set  the minutes that have events: N -> N, where N is unix time / 60, rounded down
    talk:partitions:N   list        the events of minute N as JSON, the oldest at the head
    talk:cursor         hash        partition, index: the next event of the worker

`cursor_first` takes N from the producer's clock, as the talk does. `commit_after` takes it from Redis's clock.
"""

import logging
import time
from pathlib import Path
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.exceptions import RedisError

from asynckit.redis_client import describe
from common.handover import handover_error
from common.http.frame import Stats
from common.mail.emails import BadEmail, Email, email_from_json, email_from_members
from common.mail.errors import CannotAccept, SendError
from common.mail.retry import may_retry
from common.mail.sender import PatientSender

PARTITIONS = "talk:partitions"
CURSOR = "talk:cursor"
LUA = Path(__file__).parent / "lua"

log = logging.getLogger(__name__)


class Producer:
    def __init__(self, redis: Redis, *, own_clock: bool) -> None:
        self._redis = redis
        self._own_clock = own_clock
        self._append = redis.register_script((LUA / "append.lua").read_bytes())

    async def email_requested(self, email: Email) -> None:
        """Return when the event is in the log. Raises CannotAccept if it is not, NoAnswer if it may be."""
        try:
            await self.append(email.to_json(), time.time())
        except RedisError as error:
            raise handover_error(error) from None

    async def append(self, event: bytes, now: float) -> None:
        """`now`: unix seconds by the producer's clock."""
        await self._append([PARTITIONS], [event, int(now // 60) if self._own_clock else ""])

    async def check(self) -> None:
        """Raises CannotAccept if Redis does not answer."""
        try:
            await self._redis.ping()
        except RedisError as error:
            raise CannotAccept(describe(error)) from None

    async def stats(self) -> Stats:
        """The number of events. Raises CannotAccept."""
        redis: Any = self._redis
        try:
            partitions = await redis.zrange(PARTITIONS, 0, -1)
            return {"events": sum([await redis.llen(f"{PARTITIONS}:{int(n)}") for n in partitions])}
        except RedisError as error:
            raise CannotAccept(describe(error)) from None


async def handle(sender: PatientSender, domain: str, event: bytes) -> bool:
    """Send the email that this event asks for. Returns whether it is done, False if another attempt can help.

    The first two steps ignore that and try each email once.
    """
    try:
        email = email_of(event, domain)
        await sender.send(email)
    except (BadEmail, SendError) as error:
        log.error("failed %s: %s: %s", event[:60], type(error).__name__, error)
        return not (isinstance(error, SendError) and may_retry(error))
    log.info("sent %s", email.id)
    return True


def email_of(event: bytes, domain: str) -> Email:
    """In the talk's log an event is the email; in the stream it has the email in `data`. Raises BadEmail."""
    try:
        members = orjson.loads(event)
        if "name" in members:
            members = {**members["data"], "id": members["id"]}
    except (ValueError, TypeError, KeyError):
        return email_from_json(event, domain)
    return email_from_members(members, domain)
