"""The web server: it publishes the email and answers when at least one worker has received it."""

from collections.abc import AsyncIterator

from aiohttp import web

from common.redis_client import redis_client
from common.settings import Settings
from common.web import SETTINGS, Stats, answer, read_email, web_frame

from .replies import wait_seconds
from .workers import Workers

WORKERS = web.AppKey("workers", Workers)


async def handle(request: web.Request) -> web.Response:
    email = read_email(request)
    status = await request.app[WORKERS].tell(email, wait_seconds(request))
    return answer(email, status)


def create_app(settings: Settings) -> web.Application:
    app = web_frame(settings, __package__, handle, stats, health)
    app.cleanup_ctx.append(open_workers)
    return app


async def open_workers(app: web.Application) -> AsyncIterator[None]:
    async with redis_client(app[SETTINGS].redis) as redis, Workers(redis) as app[WORKERS]:
        yield


async def stats(app: web.Application) -> Stats:
    return {"workers": await app[WORKERS].count()}  # what becomes of the emails, only the workers know


async def health(app: web.Application) -> None:
    await app[WORKERS].check()
