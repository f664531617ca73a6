"""The web server: it hands the email to the master and answers when the master holds it."""

from collections.abc import AsyncIterator
from multiprocessing.connection import Connection

import uvloop
from aiohttp import web

from common.http.frame import Stats, answer, read_email, web_frame
from common.http.serving import serve
from common.settings import Settings

from .link import MasterLink

CONNECTION = web.AppKey("connection", Connection)
MASTER = web.AppKey("master", MasterLink)


async def handle(request: web.Request) -> web.Response:
    email = read_email(request)
    await request.app[MASTER].put(email)
    return answer(email, "accepted")


def create_app(settings: Settings, connection: Connection) -> web.Application:
    app = web_frame(settings, __package__, handle, stats, health)
    app[CONNECTION] = connection
    app.cleanup_ctx.append(open_link)
    return app


async def open_link(app: web.Application) -> AsyncIterator[None]:
    async with MasterLink(app[CONNECTION]) as app[MASTER]:
        yield


async def stats(app: web.Application) -> Stats:
    return await app[MASTER].stats()


async def health(app: web.Application) -> None:
    await app[MASTER].check_room()


def main(settings: Settings, connection: Connection) -> None:
    """Run the web server in the process that the master has started for it."""
    app = create_app(settings, connection)
    uvloop.run(serve(app, settings.host, settings.port, stop=lambda: app[MASTER].stop_requested()))
