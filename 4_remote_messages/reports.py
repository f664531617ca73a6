"""The synchronous style, the worker's side: it reports the outcome on the channel that the message names."""

import asyncio
import logging
from typing import Any

import orjson
from redis.asyncio import Redis

from asynckit.log_limit import REDIS, OncePerSecond
from asynckit.redis_client import CALL_ERRORS, describe

from .channel import CHANNEL, Publisher

MAX_CHANNEL = 200  # characters

log = logging.getLogger(__name__)


class Reports:
    """Publishes what becomes of an email."""

    def __init__(self, redis: Redis) -> None:
        self._publisher = Publisher(redis)
        self._pending: set[asyncio.Future[int]] = set()
        self._log = OncePerSecond(log, REDIS)

    def report(self, reply_to: str | None, email_id: str, status: str, **more: str) -> None:
        """Publish a report without waiting for Redis. If it is lost, the caller gets a 504."""
        if reply_to is None:
            return
        future = self._publisher.publish(reply_to, orjson.dumps({"id": email_id, "status": status, **more}))
        self._pending.add(future)
        future.add_done_callback(self._done)

    def _done(self, future: asyncio.Future[int]) -> None:
        self._pending.discard(future)
        error = None if future.cancelled() else future.exception()
        if isinstance(error, CALL_ERRORS):
            self._log.warning("could not report to a server: %s", describe(error))
        elif error is not None:
            log.error("error while reporting to a server", exc_info=error)

    async def flush(self) -> None:
        if self._pending:
            await asyncio.wait(self._pending)


def reply_channel(message: bytes) -> str | None:
    """The channel on which the publisher of this message wants reports; None if it names none or an unsuitable one."""
    if b'"reply_to"' not in message:
        return None
    members = read_json(message)
    channel = members.get("reply_to") if isinstance(members, dict) else None
    return channel if isinstance(channel, str) and len(channel) <= MAX_CHANNEL and channel != CHANNEL else None


def read_json(data: bytes) -> Any:
    """The JSON in a message; None if it is not valid."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
