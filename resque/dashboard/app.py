"""The application: its routes, and the answer while Redis is unreachable."""

import logging
from collections.abc import AsyncIterator, Callable

from aiohttp import hdrs, web
from redis.exceptions import RedisError

from asynckit.log_limit import REDIS, OncePerSecond
from asynckit.redis_client import describe, redis_client
from asynckit.web.event_stream import enable_event_streams
from asynckit.web.pages import Handler, add_assets

from ..connections import namespace_for
from . import actions, live, pages
from .parts import FOLDER, PARTS, PATH, Parts, page

log = OncePerSecond(logging.getLogger(__name__), REDIS)


def dashboard(url: str, namespace: str | None = None, path: str = "/resque") -> web.Application:
    """The pages. Mount this at `path` of an application that rejects cross-site requests (common/http/guard.py)."""
    app = web.Application(middlewares=[_answer_redis_error])
    app[PATH] = path
    enable_event_streams(app)
    app.cleanup_ctx.append(_connected(url, namespace or namespace_for(url)))
    get, post = app.router.add_get, app.router.add_post
    get("", pages.overview)
    get("/queues", pages.queues)
    get("/queue", pages.jobs)
    get("/delayed", pages.delayed)
    get("/failed", pages.failed)
    get("/workers", pages.workers)
    get("/events", live.events, allow_head=False)
    post("/queues/pause", actions.pause)
    post("/queues/resume", actions.resume)
    post("/delayed/run", actions.run_now)
    post("/delayed/remove", actions.remove_delayed)
    post("/failed/retry", actions.retry)
    post("/failed/remove", actions.remove)
    post("/failed/retry-all", actions.retry_all)
    post("/failed/remove-all", actions.remove_all)
    add_assets(app, FOLDER / "assets")
    return app


def _connected(url: str, namespace: str) -> Callable[[web.Application], AsyncIterator[None]]:
    async def connect(app: web.Application) -> AsyncIterator[None]:
        async with redis_client(url, key=namespace) as redis:
            app[PARTS] = Parts.of(redis, namespace)
            yield

    return connect


@web.middleware
async def _answer_redis_error(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RedisError as error:
        log.warning("the dashboard cannot be shown: %s", describe(error))
        response = page(
            request,
            "unavailable.html",
            reason=describe(error),
            path=request.path if request.method == hdrs.METH_GET else "",
        )
        response.set_status(503)
        return response
