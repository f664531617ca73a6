"""Live figures: a page with JavaScript gets an event when they have changed, and then fetches itself again."""

from typing import Any

import orjson
from aiohttp import web

from asynckit.redis_client import CALL_ERRORS, describe
from asynckit.web.event_stream import event_stream

from .parts import PARTS, Parts

LOOK_SECONDS = 0.5


async def figures(parts: Parts) -> dict[str, Any]:
    """The key figures. Their cost does not grow with the number of waiting jobs."""
    observer, keys = parts.observer, parts.keys
    waiting, queues = await parts.queue.scripts("waiting", [keys.queues], keys.queue(""))
    delayed, more = await parts.delayed.count()
    return {
        "waiting": waiting,
        "queues": queues,
        "running": await observer.in_flight(),
        "delayed": delayed,
        "more_delayed": more,
        "failed": await parts.failed.count(),
        "processes": await observer.processes(),
    }


async def events(request: web.Request) -> web.StreamResponse:
    parts = request.app[PARTS]

    async def look() -> bytes:
        try:
            return orjson.dumps(await figures(parts) | {"totals": await parts.observer.totals()})
        except CALL_ERRORS as error:
            return orjson.dumps({"unavailable": describe(error)})

    return await event_stream(request, look, LOOK_SECONDS)
