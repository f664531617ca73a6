"""The web server: it sends the email itself while the caller waits."""

from collections.abc import AsyncIterator

from aiohttp import web

from common.http.frame import SETTINGS, Stats, answer, read_email, web_frame
from common.mail.mailer import Mailer
from common.settings import Settings

MAILER = web.AppKey("mailer", Mailer)


async def handle(request: web.Request) -> web.Response:
    email = read_email(request)
    await request.app[MAILER].send(email)
    return answer(email, "sent")


def create_app(settings: Settings) -> web.Application:
    app = web_frame(settings, __package__, handle, stats, health)
    app.cleanup_ctx.append(open_mailer)
    return app


async def open_mailer(app: web.Application) -> AsyncIterator[None]:
    async with Mailer(app[SETTINGS]) as app[MAILER]:
        yield


async def stats(app: web.Application) -> Stats:
    mailer = app[MAILER]
    return {
        "sent": mailer.sent,
        "failed": mailer.failed,
        "retried": 0,  # the server never tries again; the caller may
        "waiting": 0,
        "in_flight": mailer.in_flight,
        "oldest_wait_seconds": mailer.oldest_seconds,
        "login_failed": mailer.login_failed or False,
    }


async def health(app: web.Application) -> None:
    await app[MAILER].check()
