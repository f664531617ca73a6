"""Live pages: the state of something as server-sent events (`text/event-stream`), told when it has changed.

What is sent is the state, not what happened, so there is no queue that a slow reader could let grow: while its
connection is full we wait, and then tell it the latest.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NoReturn

from aiohttp import hdrs, web

SILENCE_SECONDS = 15.0  # between two signs of life; without one, a reader that is gone would not be noticed

READERS = web.AppKey("readers", set[asyncio.Task[Any]])


def enable_event_streams(app: web.Application) -> None:
    """To be called for the application whose handlers call `event_stream`."""
    app[READERS] = set()
    app.on_shutdown.append(_dismiss_readers)


async def event_stream(
    request: web.Request, look: Callable[[], Awaitable[bytes]], every_seconds: float
) -> web.StreamResponse:
    """Tell a reader what `look` returns (one line), at once and then when it has changed, until the reader leaves.

    Looking at a state ten times a second costs less than a wake-up for each of thousands of changes.
    """
    task = asyncio.current_task()
    assert task is not None
    readers = request.config_dict[READERS]
    readers.add(task)
    task.add_done_callback(readers.discard)
    response = web.StreamResponse(
        headers={
            hdrs.CONTENT_TYPE: "text/event-stream",
            hdrs.CACHE_CONTROL: "no-store",
            "X-Content-Type-Options": "nosniff",
        }
    )
    with suppress(ConnectionError):  # the reader has left
        await response.prepare(request)
        await _tell(response, look, every_seconds)
    return response


async def _tell(response: web.StreamResponse, look: Callable[[], Awaitable[bytes]], every_seconds: float) -> NoReturn:
    clock = asyncio.get_running_loop().time
    await response.write(b"retry: 1000\n\n")  # after how many milliseconds a browser connects again
    told, spoke = None, clock()
    while True:
        if (state := await look()) != told:
            told, spoke = state, clock()
            await response.write(b"data: %s\n\n" % state)
        elif clock() - spoke > SILENCE_SECONDS:
            spoke = clock()
            await response.write(b":\n\n")
        await asyncio.sleep(every_seconds)


async def _dismiss_readers(app: web.Application) -> None:
    """Event streams have no end of their own, and the process's end would wait for them."""
    readers = app[READERS]
    for task in tuple(readers):
        task.cancel()
