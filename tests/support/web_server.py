"""A web server with one handler, which the test provides."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from asynckit.web.pages import Handler


@asynccontextmanager
async def web_server(handler: Handler) -> AsyncIterator[int]:
    """Yields its port."""
    app = web.Application()
    app.router.add_get("/{tail:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()
