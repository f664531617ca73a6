"""Live pages: a state as server-sent events (`text/event-stream`), sent whenever it has changed.

Each event is the current state, not a change, so no queue grows for a slow client: while its connection is full, the
stream waits and then sends the latest state. The state is read once for all clients of a page.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NoReturn

from aiohttp import hdrs, web

from asynckit.tasks import background, end_tasks

SILENCE_SECONDS = 15.0  # between two comments on an unchanged stream; they reveal a client that has disconnected

FRESH = 0.9  # of the interval between two reads: up to this age, a client gets the result read for another client

Look = Callable[[], Awaitable[bytes]]


class SharedLook:
    """Reads the state of one path once for all its clients."""

    def __init__(self) -> None:
        self.task: asyncio.Task[bytes] | None = None
        self._began = 0.0

    async def __call__(self, look: Look, every_seconds: float) -> bytes:
        now = asyncio.get_running_loop().time()
        if self.task is None or (self.task.done() and now - self._began >= FRESH * every_seconds):
            self._began = now
            self.task = background(_result_of(look), "reading the state of a live page")
        return await asyncio.shield(self.task)  # a client that disconnects does not cancel it for the others


async def _result_of(look: Look) -> bytes:
    return await look()


READERS = web.AppKey("readers", set[asyncio.Task[Any]])
LOOKS = web.AppKey("looks", dict[str, SharedLook])


def enable_event_streams(app: web.Application) -> None:
    """Call this for an application whose handlers call `event_stream`."""
    app[READERS] = set()
    app[LOOKS] = {}
    app.on_shutdown.append(_cancel_streams)


async def event_stream(request: web.Request, look: Look, every_seconds: float) -> web.StreamResponse:
    """Send what `look` returns (one line), at once and then whenever it has changed, until the client disconnects.

    `look` must be equivalent for all requests of one path, because it is called once for all of them. Reading the state
    ten times a second costs less than a wake-up for each of thousands of changes.
    """

    async def send(response: web.StreamResponse) -> NoReturn:
        shared = request.config_dict[LOOKS].setdefault(request.path, SharedLook())
        await _send_changes(response, lambda: shared(look, every_seconds), every_seconds)

    return await stream_events(request, send)


async def stream_events(
    request: web.Request, send: Callable[[web.StreamResponse], Awaitable[NoReturn]]
) -> web.StreamResponse:
    """Open a stream and let `send` write its events, until the client disconnects or the application shuts down."""
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
    with suppress(ConnectionError):  # the client has disconnected
        await response.prepare(request)
        await response.write(b"retry: 1000\n\n")  # milliseconds until a browser reconnects
        await send(response)
    return response


async def _send_changes(response: web.StreamResponse, look: Look, every_seconds: float) -> NoReturn:
    clock = asyncio.get_running_loop().time
    sent, sent_at = None, clock()
    while True:
        if (state := await look()) != sent:
            sent, sent_at = state, clock()
            await response.write(b"data: %s\n\n" % state)
        elif clock() - sent_at > SILENCE_SECONDS:
            sent_at = clock()
            await response.write(b":\n\n")
        await asyncio.sleep(every_seconds)


async def _cancel_streams(app: web.Application) -> None:
    """Cancel the streams on shutdown: they never end by themselves, and the shutdown would wait for them."""
    readers = app[READERS]
    for task in tuple(readers):
        task.cancel()
    await end_tasks([look.task for look in app[LOOKS].values() if look.task is not None])
