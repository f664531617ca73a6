"""Pulls messages from a consumer of JetStream, and interprets an answer without messages."""

import asyncio
from contextlib import suppress

import orjson
from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from .errors import LogError, NotTaken
from .nats_client import AGAIN_SECONDS, ANSWER_SECONDS, NO_CONSUMER, NO_STREAM, Nats, Refused
from .outcomes import redis_log as log_once

LOOK_UP_SECONDS = 0.5  # the time limit for asking whether a consumer exists
DONE = ("404", "408")  # a pull has ended: there are no messages, or its time limit has passed


class Moved(NotTaken):
    """The consumer does not exist."""


class Ended(NotTaken):
    """A pull was not accepted or ended early: its consumer does not exist, or has no leader now."""


async def pull(nats: Nats, stream: str, consumer: str, limit: int, seconds: float = 0.0) -> list[Msg]:
    """Messages of a pull consumer: those that are available now, or the first one that arrives in time.

    Returns [] if the consumer has no leader because its node was killed; the other nodes then elect a new leader.
    Raises Moved, NotTaken or LogError.
    """
    try:
        found: list[Msg] = await nats.until_lost(_pull(nats.connected(), f"{stream}.{consumer}", limit, seconds))
        return found
    except Ended:
        if await _is_deleted(nats, stream, consumer):
            raise Moved(f"NATS: the consumer {consumer} does not exist") from None
    log_once.warning("NATS: the consumer %s of %s has no leader", consumer, stream)
    await asyncio.sleep(AGAIN_SECONDS)
    return []


async def _pull(client: Client, of: str, limit: int, seconds: float) -> list[Msg]:
    found: list[Msg] = []
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def take(message: Msg) -> None:
        if status := (message.headers or {}).get("Status"):
            if not ended.done():
                ended.set_result(status)
            return
        found.append(message)
        if len(found) == limit and not ended.done():
            ended.set_result(DONE[0])

    inbox = client.new_inbox()
    answers = await client.subscribe(inbox, cb=take)
    ask = {"batch": limit, "expires": int(seconds * 1e9)} if seconds else {"batch": limit, "no_wait": True}
    try:
        await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{of}", orjson.dumps(ask), reply=inbox)
        async with asyncio.timeout(seconds + ANSWER_SECONDS):
            status = await ended
    except TimeoutError:
        if not found:
            raise
    else:
        if status not in DONE and not found:
            raise Ended(f"NATS: a pull ended with status {status}")
    finally:
        with suppress(errors.Error):
            await answers.unsubscribe()
    return found


async def _is_deleted(nats: Nats, stream: str, consumer: str) -> bool:
    """Every node can answer that a consumer does not exist, but only the consumer's leader answers that it exists."""
    try:
        await nats.api(f"CONSUMER.INFO.{stream}.{consumer}", limit=LOOK_UP_SECONDS)
    except Refused as error:
        return error.code in (NO_CONSUMER, NO_STREAM)
    except LogError:
        return False
    return False
