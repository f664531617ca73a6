"""The web server: it puts the email into a queue in Redis and answers when the job is stored."""

from collections.abc import AsyncIterator

from aiohttp import web

from asynckit.durability import warn_if_not_durable
from asynckit.redis_client import redis_client
from common.http.frame import LINKS, SETTINGS, Stats, answer, read_email, web_frame
from common.processes.chapter import chapter_module
from common.processes.steps import known
from common.settings import Settings
from resque import namespace_for
from resque.dashboard import dashboard

from .jobs import Jobs

JOBS = web.AppKey("jobs", Jobs)  # or rabbitmq.Jobs, which has the same methods


async def handle(request: web.Request) -> web.Response:
    email = read_email(request)
    await request.app[JOBS].enqueue(email)
    return answer(email, "accepted")


def create_app(settings: Settings) -> web.Application:
    app = web_frame(settings, __package__, handle, stats, health)
    if settings.queue == "rabbitmq":
        app.cleanup_ctx.append(open_rabbitmq)
        return app
    app.cleanup_ctx.append(open_queue)
    app.add_subapp("/resque", dashboard(settings.redis))
    app[LINKS].append("/resque")
    return app


async def open_queue(app: web.Application) -> AsyncIterator[None]:
    url, settings = app[SETTINGS].redis, app[SETTINGS]
    async with redis_client(url, key=namespace_for(url)) as redis:
        await warn_if_not_durable(redis)
        app[JOBS] = Jobs(redis, settings.email_class, settings.ack_replicas, namespace_for(url))
        yield


async def open_rabbitmq(app: web.Application) -> AsyncIterator[None]:
    async with chapter_module(f"{__package__}.rabbitmq").open_jobs(app[SETTINGS]) as app[JOBS]:
        yield


async def stats(app: web.Application) -> Stats:
    return known(await app[JOBS].stats(), app[SETTINGS], __package__)


async def health(app: web.Application) -> None:
    await app[JOBS].check()
