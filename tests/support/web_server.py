"""A web server whose one handler does as a test wants."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from asynckit.web.pages import Handler


@asynccontextmanager
async def web_server(handler: Handler) -> AsyncIterator[int]:
    """Its port."""
    app = web.Application()
    app.router.add_get("/{tail:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()
