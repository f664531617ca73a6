"""The workers as the server sees them: whoever is subscribed at this moment. It knows their number, not their names."""

import asyncio
from typing import Self

from redis.asyncio import Redis
from redis.exceptions import RedisError

from common.emails import Email
from common.errors import CannotAccept, InDoubt
from common.redis_client import reason

from .channel import CHANNEL, Publisher, count_subscribers
from .replies import Replies


class Workers:
    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._publisher = Publisher(redis)
        self._replies = Replies(redis)

    async def __aenter__(self) -> Self:
        await self._replies.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._replies.__aexit__(*error)

    async def tell(self, email: Email, wait: float | None) -> str:
        """Publish the email: "accepted". Or, the synchronous style, wait so many seconds for a worker's report: "sent".

        Raises CannotAccept when no worker has received it, as far as we know; when waiting, also NotSent with the
        worker's reason, and InDoubt when no worker has reported the end in time.
        """
        if wait is None:
            await self._publish(email.to_json())
            return "accepted"
        with self._replies.expect(email.id) as report:
            try:
                async with asyncio.timeout(wait):
                    await self._publish(self._replies.ask_for_report(email))
                    await report.end
            except TimeoutError:
                so_far = "a worker has started, none has ended" if report.started.is_set() else "no worker has reported"
                raise InDoubt(f"{so_far} within {wait:g} s: it may still be sent") from None
        return "sent"

    async def _publish(self, message: bytes) -> None:
        if not await self._publisher.publish(CHANNEL, message):
            raise CannotAccept("no worker is subscribed")

    async def check(self) -> None:
        """Raises CannotAccept when an email could not be handed over now."""
        try:
            number = await count_subscribers(self._redis, CHANNEL)
        except RedisError as error:
            raise CannotAccept(reason(error)) from None
        if not number:
            raise CannotAccept("no worker is subscribed")

    async def count(self) -> int | None:
        """How many there are; None when Redis does not say."""
        try:
            return await count_subscribers(self._redis, CHANNEL)
        except RedisError:
            return None
