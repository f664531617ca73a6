"""The web server: it starts a task that sends the email, and answers without waiting for it."""

from collections.abc import AsyncIterator

from aiohttp import web

from common.http.frame import SETTINGS, Stats, answer, read_email, web_frame
from common.mail.mailer import Mailer
from common.settings import Settings

from .tasks import SendingTasks

TASKS = web.AppKey("tasks", SendingTasks)


async def handle(request: web.Request) -> web.Response:
    email = read_email(request)
    request.app[TASKS].start(email)
    return answer(email, "accepted")


def create_app(settings: Settings) -> web.Application:
    app = web_frame(settings, __package__, handle, stats, health)
    app.cleanup_ctx.append(open_tasks)
    return app


async def open_tasks(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    async with Mailer(settings, patient=True) as mailer, SendingTasks(mailer, settings.drain_seconds) as app[TASKS]:
        yield


async def stats(app: web.Application) -> Stats:
    tasks = app[TASKS]
    return {
        "sent": tasks.sent,
        "failed": tasks.failed,
        "retried": 0,  # a failed email is counted and dropped
        "waiting": 0,
        "in_flight": tasks.in_flight,
        "oldest_wait_seconds": tasks.oldest_seconds,
        "login_failed": tasks.login_failed or False,
    }


async def health(app: web.Application) -> None:
    app[TASKS].check_room()
