"""The web server: it appends the event that an email was requested, and answers when the event is in the log."""

from collections.abc import AsyncIterator
from functools import partial

from aiohttp import web

from asynckit.durability import warn_if_not_durable
from asynckit.redis_client import redis_client
from common.http.frame import LINKS, SETTINGS, Stats, answer, read_email, web_frame
from common.processes.steps import known
from common.settings import Settings
from eventlog.dashboard.page import log_page

from . import logs
from .producer import Producer
from .steps import talk

PRODUCER: web.AppKey[Producer | talk.Producer] = web.AppKey("producer")


async def handle(request: web.Request) -> web.Response:
    email = read_email(request)
    await request.app[PRODUCER].email_requested(email)
    return answer(email, "accepted")


def create_app(settings: Settings) -> web.Application:
    app = web_frame(settings, __package__, handle, stats, health)
    app.cleanup_ctx.append(open_log)
    app.add_subapp("/log", log_page(partial(logs.open_log, settings)))
    app[LINKS].append("/log")
    return app


async def open_log(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    if settings.step in ("cursor_first", "commit_after"):
        async with redis_client(settings.redis) as redis:
            await warn_if_not_durable(redis)
            app[PRODUCER] = talk.Producer(redis, own_clock=settings.step == "cursor_first")
            yield
    else:
        async with logs.open_log(settings, warn=True) as (log, _):
            app[PRODUCER] = Producer(log)
            yield


async def stats(app: web.Application) -> Stats:
    return known(await app[PRODUCER].stats(), app[SETTINGS], __package__)


async def health(app: web.Application) -> None:
    await app[PRODUCER].check()
