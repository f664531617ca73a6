"""Live pages: the state of something as server-sent events (`text/event-stream`), told when it has changed.

What is sent is the state, not what happened, so there is no queue that a slow reader could let grow: while its
connection is full we wait, and then tell it the latest. All readers of a page share one look at its state.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NoReturn

from aiohttp import hdrs, web

from asynckit.tasks import background, end_tasks

SILENCE_SECONDS = 15.0  # between two signs of life; without one, a reader that is gone would not be noticed

FRESH = 0.9  # of the time between two looks: a reader takes a result of this age from the reader before it

Look = Callable[[], Awaitable[bytes]]


class SharedLook:
    """Looks for all readers of one path: a state is read once, however many readers there are."""

    def __init__(self) -> None:
        self.task: asyncio.Task[bytes] | None = None
        self._began = 0.0

    async def __call__(self, look: Look, every_seconds: float) -> bytes:
        now = asyncio.get_running_loop().time()
        if self.task is None or (self.task.done() and now - self._began >= FRESH * every_seconds):
            self._began = now
            self.task = background(_result_of(look), "reading the state of a live page")
        return await asyncio.shield(self.task)  # a reader that leaves does not cancel it for the others


async def _result_of(look: Look) -> bytes:
    return await look()


READERS = web.AppKey("readers", set[asyncio.Task[Any]])
LOOKS = web.AppKey("looks", dict[str, SharedLook])


def enable_event_streams(app: web.Application) -> None:
    """To be called for the application whose handlers call `event_stream`."""
    app[READERS] = set()
    app[LOOKS] = {}
    app.on_shutdown.append(_dismiss_readers)


async def event_stream(request: web.Request, look: Look, every_seconds: float) -> web.StreamResponse:
    """Tell a reader what `look` returns (one line), at once and then when it has changed, until the reader leaves.

    `look` must mean the same for all requests of one path: it is called once for all of them.
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
        shared = request.config_dict[LOOKS].setdefault(request.path, SharedLook())
        await _tell(response, lambda: shared(look, every_seconds), every_seconds)
    return response


async def _tell(response: web.StreamResponse, look: Look, every_seconds: float) -> NoReturn:
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
    await end_tasks([look.task for look in app[LOOKS].values() if look.task is not None])
