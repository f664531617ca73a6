"""Given: the web server of chapter 2. Your file is tasks.py."""

from collections.abc import AsyncIterator

from aiohttp import web
from tasks import SendingTasks

from common.http.frame import SETTINGS, Stats, answer, read_email, web_frame
from common.http.serving import serve
from common.mail.mailer import Mailer
from common.processes.process import run
from common.settings import read_settings

TASKS = web.AppKey("tasks", SendingTasks)


async def handle(request: web.Request) -> web.Response:
    email = read_email(request)
    request.app[TASKS].start(email)
    return answer(email, "accepted")


async def open_tasks(app: web.Application) -> AsyncIterator[None]:
    async with Mailer(app[SETTINGS], patient=True) as mailer:
        app[TASKS] = SendingTasks(mailer)
        yield


async def stats(app: web.Application) -> Stats:
    return {}


async def health(app: web.Application) -> None:
    return None


if __name__ == "__main__":
    settings = read_settings()
    app = web_frame(settings, "2_parallel", handle, stats, health)
    app.cleanup_ctx.append(open_tasks)
    run(serve(app, settings.host, settings.port))
