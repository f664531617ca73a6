"""The web server: it publishes the email and answers when at least one worker has received it."""

from collections.abc import AsyncIterator

from aiohttp import web

from asynckit.redis_client import redis_client
from common.http.frame import SETTINGS, Stats, answer, read_email, web_frame
from common.settings import Settings

from .channel import CHANNEL
from .replies import open_replies, or_wait
from .workers import Workers

WORKERS = web.AppKey("workers", Workers)


async def handle(request: web.Request) -> web.Response:
    email = read_email(request)
    await request.app[WORKERS].publish(email)
    return answer(email, "accepted")


def create_app(settings: Settings) -> web.Application:
    app = web_frame(settings, __package__, or_wait(handle), stats, health)
    app.cleanup_ctx.append(open_workers)
    app.cleanup_ctx.append(open_replies)
    return app


async def open_workers(app: web.Application) -> AsyncIterator[None]:
    async with redis_client(app[SETTINGS].redis, key=CHANNEL) as redis:
        app[WORKERS] = Workers(redis)
        yield


async def stats(app: web.Application) -> Stats:
    return {"workers": await app[WORKERS].count()}  # only the workers know how many emails wait or were sent


async def health(app: web.Application) -> None:
    await app[WORKERS].check()
