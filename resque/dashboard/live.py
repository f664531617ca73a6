"""The figures, live: a page with script is told when they have changed, and then asks for itself again."""

from typing import Any

import orjson
from aiohttp import web
from redis.exceptions import RedisError

from asynckit.redis_client import describe
from asynckit.web.event_stream import event_stream

from .parts import PARTS, Parts

LOOK_SECONDS = 0.5


async def figures(parts: Parts) -> dict[str, Any]:
    """The few numbers that tell how it goes. Their cost does not grow with what waits."""
    observer, keys = parts.observer, parts.keys
    waiting, queues = await parts.queue.scripts("waiting", [keys.queues], keys.queue(""))
    delayed, more = await observer.delayed()
    return {
        "waiting": waiting,
        "queues": queues,
        "running": await observer.in_flight(),
        "delayed": delayed,
        "more_delayed": more,
        "failed": await observer.failed(),
        "processes": await observer.processes(),
    }


async def events(request: web.Request) -> web.StreamResponse:
    parts = request.app[PARTS]

    async def look() -> bytes:
        try:
            return orjson.dumps(await figures(parts) | {"totals": await parts.observer.totals()})
        except RedisError as error:
            return orjson.dumps({"away": describe(error)})

    return await event_stream(request, look, LOOK_SECONDS)
