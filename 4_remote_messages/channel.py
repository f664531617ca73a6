"""The one new idea: a channel in Redis. One process publishes, others subscribe, on this machine or on any other.

Redis keeps nothing of it. A message goes to those who are subscribed at this moment, to each of them the whole of it,
and the publisher learns how many there were. What goes over which channel, as compact JSON in UTF-8:

    emailz              {"id", "to", "subject", "text"}          please send this email
                        {…, "reply_to": channel}                 and report on that channel what becomes of it
    emailz:replies:X    {"id", "status": "started" or "sent"}    a worker's report to server process X (32 hex digits)
                        {"id", "status": "failed", "kind", "reason"}    kind: a class of common/mail/errors.py

Members that a reader does not know are ignored, so programs that say and understand only to, subject and text can join.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import orjson
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError, RedisError

from asynckit.backoff import backoff_seconds
from asynckit.batcher import Batcher
from asynckit.log_limit import REDIS, OncePerSecond
from asynckit.redis_client import describe
from asynckit.tasks import end_tasks, keep_running

CHANNEL = "emailz"
PING_SECONDS = 1.0  # the silence after which we ask whether Redis is still there, and how long we wait for its answer
PAUSE_CAP_SECONDS = 0.5  # between two tries to subscribe again: what is published meanwhile is lost
UNSUBSCRIBE_SECONDS = 2.0

log = logging.getLogger(__name__)


class Publisher:
    """Publishes; calls that come together go to Redis together."""

    def __init__(self, redis: Redis) -> None:
        self._script = redis.register_script(Path(__file__).with_name("publish.lua").read_bytes())
        self._publish = Batcher(self._publish_many)

    def publish(self, channel: str, message: bytes) -> asyncio.Future[int]:
        """How many subscribers received it. Raises RedisError when Redis does not say so.

        Never repeated: a lost answer does not mean a lost message, and a repeated message is a second email. (What the
        script call repeats is a script that Redis does not know yet, and then nothing was published.)
        """
        return self._publish((channel, message))

    async def _publish_many(self, messages: Sequence[tuple[str, bytes]]) -> Sequence[int]:
        # As one argument of JSON: a hundred arguments would take redis-py longer than the rest of the call.
        words = [word for channel, message in messages for word in (channel, message.decode())]
        receivers: list[int] = await self._script(args=[orjson.dumps(words)])
        return receivers


class Subscription:
    """Hands each message of a channel to `receive`, and subscribes again when the connection is dead."""

    def __init__(self, redis: Redis, channel: str, receive: Callable[[bytes], None]) -> None:
        self.live = False
        self.times = 0  # it has subscribed so often; all but the first were because a connection died
        self._redis = redis
        self._channel = channel
        self._receive = receive
        self._heard = False  # anything at all, since _ask looked last
        self._pubsub: PubSub | None = None
        self._task: asyncio.Task[None]
        self._lost_log = OncePerSecond(log, REDIS)
        self._back_log = OncePerSecond(log)

    async def __aenter__(self) -> Self:
        self._task = keep_running(self._stay_subscribed, f"subscription to {self._channel}")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Take nothing new. What was published before Redis heard of it is still received."""
        if self.live and self._pubsub is not None:
            try:
                await self._pubsub.unsubscribe()
                await asyncio.wait([self._task], timeout=UNSUBSCRIBE_SECONDS)
            except RedisError as error:
                log.warning("could not unsubscribe from %s: %s", self._channel, describe(error))
        await end_tasks([self._task])

    async def _stay_subscribed(self) -> None:
        failures = 0
        while True:
            try:
                async with self._redis.pubsub() as self._pubsub:
                    await self._pubsub.subscribe(self._channel)
                    await self._listen(self._pubsub)
                return
            except RedisError as error:
                failures = 1 if self.live else failures + 1
                self._lost_log.warning("not subscribed to %s: %s", self._channel, describe(error))
            except Exception:  # an answer that is none: a worker must not live on deaf
                failures += 1
                log.exception("error on %s", self._channel)
            finally:
                self.live = False
            await asyncio.sleep(backoff_seconds(failures, base=0.05, cap=PAUSE_CAP_SECONDS))

    async def _listen(self, pubsub: PubSub) -> None:
        """Returns when unsubscribed. Raises RedisError when the connection is dead.

        A dead connection may look like a silent one, so silence is answered with a PING.
        """
        reading = asyncio.create_task(self._read(pubsub))
        asking = asyncio.create_task(self._ask(pubsub))
        try:
            done, _ = await asyncio.wait([reading, asking], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await end_tasks([reading, asking])

    async def _read(self, pubsub: PubSub) -> None:
        while True:
            message = await pubsub.get_message(timeout=None)  # a limit here would cost a third of the time of a message
            self._heard = True
            if message is None:
                continue
            if message["type"] == "message":
                self._hand_over(message["data"])
            elif message["type"] == "subscribe":
                self._is_live()
            elif message["type"] == "unsubscribe":
                return

    async def _ask(self, pubsub: PubSub) -> None:
        asked, self._heard = False, False
        while True:
            await asyncio.sleep(PING_SECONDS)
            if not self._heard and asked:
                raise ConnectionError("no answer to PING")
            asked, self._heard = not self._heard, False  # before the PING: its answer may come while it is being sent
            if asked:
                await pubsub.ping()

    def _is_live(self) -> None:
        self.live = True
        self.times += 1
        if self.times == 1:
            log.info("subscribed to %s", self._channel)
        else:
            self._back_log.warning("subscribed to %s again, for the %d. time", self._channel, self.times - 1)

    def _hand_over(self, data: bytes) -> None:
        try:
            self._receive(data)
        except Exception:  # a bug met by one message must not end the subscription
            log.exception("error while receiving a message of %s", self._channel)


async def count_subscribers(redis: Redis, channel: str) -> int:
    """How many are subscribed at this moment. Raises RedisError."""
    [(_, number)] = await redis.pubsub_numsub(channel)
    return int(number)
