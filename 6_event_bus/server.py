"""The web server: it appends the event that an email was requested, and answers when the event is in the log."""

from collections.abc import AsyncIterator
from functools import partial

from aiohttp import web

from common.http.frame import LINKS, SETTINGS, Stats, answer, read_email, web_frame
from common.processes.steps import known
from common.settings import Settings
from eventlog.dashboard.page import log_page

from . import logs

PRODUCER: web.AppKey[logs.AnyProducer] = web.AppKey("producer")


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
    async with logs.open_producer(app[SETTINGS]) as app[PRODUCER]:
        yield


async def stats(app: web.Application) -> Stats:
    return known(await app[PRODUCER].stats(), app[SETTINGS], __package__)


async def health(app: web.Application) -> None:
    await app[PRODUCER].check()
