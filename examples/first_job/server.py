"""The web server: a page with two buttons that create jobs, and the pages of the queue at /jobs."""

from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from asynckit.redis_client import redis_client
from common.http.frame import json_errors
from common.http.guard import HOST
from common.settings import Settings
from resque import Queue
from resque.dashboard import dashboard

QUEUE = web.AppKey("queue", Queue)
URL = web.AppKey("url", str)


async def show_page(request: web.Request) -> web.FileResponse:
    return web.FileResponse(Path(__file__).with_name("page.html"))


async def create_job(request: web.Request) -> web.Response:
    """A job is a queue, a class, and arguments that are JSON. It is in Redis when `enqueue` returns."""
    form = {name: str(value) for name, value in (await request.post()).items()}
    job_class = "sendEmail" if "to" in form else "test"
    await request.app[QUEUE].enqueue("first", job_class, [form])
    raise web.HTTPSeeOther("/jobs")


async def open_queue(app: web.Application) -> AsyncIterator[None]:
    async with redis_client(app[URL]) as redis:
        app[QUEUE] = Queue(redis)
        yield


def create_app(settings: Settings) -> web.Application:
    app = web.Application(middlewares=[json_errors])  # it refuses requests of other sites
    app[HOST], app[URL] = settings.host, settings.redis
    app.cleanup_ctx.append(open_queue)
    app.router.add_get("/", show_page)
    app.router.add_post("/", create_job)
    app.add_subapp("/jobs", dashboard(settings.redis, path="/jobs"))
    return app
