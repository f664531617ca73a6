"""The workers as the server sees them: it publishes to all that are subscribed, and knows only how many there are."""

import orjson
from redis.asyncio import Redis

from asynckit.redis_client import CALL_ERRORS, describe
from common.handover import handover_error
from common.mail.emails import Email
from common.mail.errors import CannotAccept

from .channel import CHANNEL, Publisher, count_subscribers


class Workers:
    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._publisher = Publisher(redis)

    async def publish(self, email: Email, reply_to: str | None = None) -> None:
        """Return when a worker has received the email; `reply_to` is a channel on which it reports the outcome.

        Raises CannotAccept if no worker received it, NoAnswer if Redis did not answer.
        """
        members = {"id": email.id, **email.to_dict()}
        if reply_to is not None:
            members["reply_to"] = reply_to
        try:
            receivers = await self._publisher.publish(CHANNEL, orjson.dumps(members))
        except CALL_ERRORS as error:
            raise handover_error(error) from None
        if not receivers:
            raise CannotAccept("no worker is subscribed")

    async def check(self) -> None:
        """Raises CannotAccept if an email could not be handed over now."""
        try:
            number = await count_subscribers(self._redis, CHANNEL)
        except CALL_ERRORS as error:
            raise CannotAccept(describe(error)) from None
        if not number:
            raise CannotAccept("no worker is subscribed")

    async def count(self) -> int | None:
        """How many workers are subscribed; None if Redis cannot be reached."""
        try:
            return await count_subscribers(self._redis, CHANNEL)
        except CALL_ERRORS:
            return None
