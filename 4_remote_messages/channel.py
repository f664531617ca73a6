"""The one new idea: a channel in Redis. One process publishes, others subscribe, on this machine or on any other.

Redis stores no message. It passes each one to every process that is subscribed at this moment, and tells the publisher
how many there were. These are the channels and their messages (compact JSON in UTF-8):

    emailz              {"id", "to", "subject", "text"}          send this email
                        {…, "reply_to": channel}                 and report the outcome on that channel
    emailz:replies:X    {"id", "status": "started" or "sent"}    a worker's report to server process X (32 hex digits)
                        {"id", "status": "failed", "kind", "reason"}    kind: a class of common/mail/errors.py

Readers ignore members that they do not know, so a program that knows only to, subject and text can take part.

In a Redis Cluster, PUBLISH counts only the subscribers of one node. So all programs use sharded channels there (Redis 7
and later): SPUBLISH and SSUBSCRIBE, at the node that has the channel's slot. The channels of reports begin with
`{emailz}`: a hash tag, so that they are in the same slot.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import orjson
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError

from asynckit.backoff import backoff_seconds
from asynckit.batcher import Batcher
from asynckit.cluster_client import is_on_cluster
from asynckit.log_limit import REDIS, OncePerSecond
from asynckit.redis_client import CALL_ERRORS, describe
from asynckit.tasks import end_tasks, keep_running, run_together

CHANNEL = "emailz"
PING_SECONDS = 1.0  # after this time without a message we send a PING, and wait as long for its answer
PAUSE_CAP_SECONDS = 0.5  # the longest pause between two attempts to subscribe: what is published meanwhile is lost
UNSUBSCRIBE_SECONDS = 2.0

log = logging.getLogger(__name__)


class Publisher:
    """Publishes messages; calls that come at the same time go to Redis in one batch."""

    def __init__(self, redis: Redis) -> None:
        self._script = redis.register_script(Path(__file__).with_name("publish.lua").read_bytes())
        self._sharded = is_on_cluster(redis)
        self._publish = Batcher(self._publish_many)

    def publish(self, channel: str, message: bytes) -> asyncio.Future[int]:
        """Return how many subscribers received the message. Raises RedisError if Redis does not answer that.

        It is never repeated: if only the answer was lost, the message has arrived, and a repetition would be a second
        email. (The script call repeats itself only when Redis does not know the script yet: nothing was published.)
        """
        return self._publish((channel, message))

    async def _publish_many(self, messages: Sequence[tuple[str, bytes]]) -> Sequence[int]:
        # One argument of JSON, because a hundred arguments would take redis-py longer than the rest of the call.
        words = [word for channel, message in messages for word in (channel, message.decode())]
        command, keys = ("SPUBLISH", words[:1]) if self._sharded else ("PUBLISH", [])
        receivers: list[int] = await self._script(keys=keys, args=[orjson.dumps(words), command])
        return receivers


class Subscription:
    """Passes each message of a channel to `receive`, and subscribes again after the connection has died."""

    def __init__(self, redis: Redis, channel: str, receive: Callable[[bytes], None]) -> None:
        self.live = False
        self.times = 0  # how often it has subscribed: once, and again after each connection that died
        self._redis = redis
        self._sharded = is_on_cluster(redis)
        self._channel = channel
        self._receive = receive
        self._leaving = False
        self._heard = False  # whether anything was received since _ping looked last
        self._pubsub: PubSub | None = None
        self._task: asyncio.Task[None]
        self._lost_log = OncePerSecond(log, REDIS)
        self._again_log = OncePerSecond(log)

    async def __aenter__(self) -> Self:
        self._task = keep_running(self._stay_subscribed, f"subscription to {self._channel}")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Unsubscribe. Messages that were published before Redis unsubscribes us are still received."""
        if self.live and self._pubsub is not None:
            self._leaving = True
            try:
                await (self._pubsub.sunsubscribe() if self._sharded else self._pubsub.unsubscribe())
                await asyncio.wait([self._task], timeout=UNSUBSCRIBE_SECONDS)
            except CALL_ERRORS as error:
                log.warning("could not unsubscribe from %s: %s", self._channel, describe(error))
        await end_tasks([self._task])

    async def _stay_subscribed(self) -> None:
        failures = 0
        while True:
            try:
                async with self._redis.pubsub() as self._pubsub:
                    subscribe = self._pubsub.ssubscribe if self._sharded else self._pubsub.subscribe
                    await subscribe(self._channel)
                    await self._listen(self._pubsub)
                return
            except CALL_ERRORS as error:
                failures = 1 if self.live else failures + 1
                self._lost_log.warning("not subscribed to %s: %s", self._channel, describe(error))
            except Exception:  # a broken answer of Redis, for example: a worker must not go on without a subscription
                failures += 1
                log.exception("error on %s", self._channel)
            finally:
                self.live = False
            await asyncio.sleep(backoff_seconds(failures, base=0.05, cap=PAUSE_CAP_SECONDS))

    async def _listen(self, pubsub: PubSub) -> None:
        """Read until unsubscribed. Raises RedisError when the connection has died.

        A dead connection looks the same as a channel without messages, so we send a PING when nothing comes.
        """
        await run_together(self._read(pubsub), self._ping(pubsub))

    async def _read(self, pubsub: PubSub) -> None:
        while True:
            message = await pubsub.get_message(timeout=None)  # a timeout would make each message 50 % slower
            self._heard = True
            if message is None:
                continue
            match message["type"].removeprefix("s") if self._sharded else message["type"]:
                case "message":
                    self._pass_on(message["data"])
                case "subscribe":
                    self._subscribed()
                case "unsubscribe" if self._leaving:
                    return
                case "unsubscribe":
                    raise ConnectionError("the channel has moved to another node")

    async def _ping(self, pubsub: PubSub) -> None:
        pinged, self._heard = False, False
        while True:
            await asyncio.sleep(PING_SECONDS)
            if not self._heard and pinged:
                raise ConnectionError("no answer to PING")
            pinged, self._heard = not self._heard, False  # set before the PING, whose answer may come during the send
            if pinged:
                await pubsub.ping()

    def _subscribed(self) -> None:
        self.live = True
        self.times += 1
        if self.times == 1:
            log.info("subscribed to %s", self._channel)
        else:
            self._again_log.warning("subscribed to %s again (%d so far)", self._channel, self.times - 1)

    def _pass_on(self, data: bytes) -> None:
        try:
            self._receive(data)
        except Exception:  # a bug in the handling of one message must not end the subscription
            log.exception("error while receiving a message of %s", self._channel)


async def count_subscribers(redis: Redis, channel: str) -> int:
    """Count the processes that are subscribed at this moment. Raises RedisError."""
    if is_on_cluster(redis):
        # A node that does not have the channel's slot would count 0; here it raises MovedError.
        await redis.exists(channel)
        [(_, number)] = await redis.pubsub_shardnumsub(channel)
    else:
        [(_, number)] = await redis.pubsub_numsub(channel)
    return int(number)
