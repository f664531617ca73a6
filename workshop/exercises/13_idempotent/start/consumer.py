"""Given: a consumer that gives each event to your handler, and then commits its position. Your file is handler.py.

exercise:log        list     the events, the oldest at the head
exercise:position   string   how many events are done
"""

import asyncio
import json
import os
from typing import Any

from handler import handle

from asynckit.redis_client import redis_client


async def consume() -> None:
    async with redis_client(os.environ["REDIS_URL"]) as client:
        redis: Any = client
        while True:
            position = int(await redis.get("exercise:position") or 0)
            if (raw := await redis.lindex("exercise:log", position)) is None:
                break
            await handle(redis, json.loads(raw))
            await redis.set("exercise:position", position + 1)  # a kill before this line repeats the event
    print("at the end of the log", flush=True)


asyncio.run(consume())
