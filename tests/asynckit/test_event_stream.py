"""Live pages: the state is read once for all clients."""

import asyncio

from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from asynckit.web.event_stream import enable_event_streams, event_stream
from tests.support.programs import LIMIT, until

READERS = 30


async def test_all_clients_of_a_page_share_one_read() -> None:
    looks = requests = 0
    state = asyncio.Event()

    async def look() -> bytes:
        nonlocal looks
        looks += 1
        await state.wait()
        return b"%d" % looks

    async def events(request: web.Request) -> web.StreamResponse:
        nonlocal requests
        requests += 1
        return await event_stream(request, look, every_seconds=3600)

    async def first_of(session: ClientSession, url: str) -> bytes:
        async with session.get(url) as response:
            return await response.content.readuntil(b"data: 1\n\n")

    app = web.Application()
    enable_event_streams(app)
    app.router.add_get("/events", events)
    async with TestServer(app) as server, ClientSession() as session, asyncio.timeout(LIMIT):
        reading = [asyncio.create_task(first_of(session, str(server.make_url("/events")))) for _ in range(READERS)]
        await until(lambda: requests == READERS)
        reading.pop().cancel()  # a client that disconnects does not cancel the read
        state.set()
        await asyncio.gather(*reading)
    assert looks == 1
