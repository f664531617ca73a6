"""Your file: ask the worker of strategy 4 to send emails, and wait for its answers.

`ask.py TO …` publishes an email to each address, one after the other, and prints one line for each:

    TO: sent         what the worker has answered: sent, or failed
    TO: no worker    the email was not received, because no worker is subscribed
    TO: no answer    no answer came within ANSWER_SECONDS
"""

import asyncio
import json
import os
import sys
from uuid import uuid4

from redis.asyncio import Redis

from asynckit.ids import new_id
from asynckit.redis_client import redis_client

CHANNEL = os.environ.get("CHANNEL", "emailz")
ANSWER_SECONDS = float(os.environ.get("ANSWER_SECONDS", "5"))


async def ask(redis: Redis, to: str) -> str:
    """Publish an email, and return the worker's answer."""
    email = {"id": new_id("example.com"), "to": to, "subject": "Exercise", "text": "Hello"}
    reply_to = f"{CHANNEL}:replies:{uuid4().hex}"
    async with redis.pubsub() as answers:
        await answers.subscribe(reply_to)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                async for message in answers.listen():
                    if message["type"] == "subscribe":  # Redis has confirmed it: from now on no answer is missed
                        receivers = await redis.publish(CHANNEL, json.dumps({**email, "reply_to": reply_to}))
                        if not receivers:
                            return "no worker"
                    elif message["type"] == "message":
                        return str(message["data"].decode())
        except TimeoutError:
            pass
    return "no answer"


async def main() -> None:
    async with redis_client(os.environ["REDIS_URL"]) as redis:
        for to in sys.argv[1:]:
            print(f"{to}: {await ask(redis, to)}", flush=True)


asyncio.run(main())
