"""The HTTP side of the inbox: the page, and the API that the package's docstring describes."""

import asyncio
import re
from pathlib import Path

import orjson
from aiohttp import web
from pydantic import SecretStr

from asynckit.web.event_stream import enable_event_streams, event_stream
from asynckit.web.pages import Handler, add_assets, error_json, html_page, pretty_json
from common.http.frame import json_errors
from common.http.guard import HOST, PASSWORD
from common.services.inbox.faults import BadFaults, Dial
from common.services.inbox.parsing import Message
from common.services.inbox.store import KEEP, Store

PAGES = Path(__file__).parent / "pages"
LOOPBACK = "127.0.0.1"
EVENT_SECONDS = 0.1  # the shortest time between two events

STORE = web.AppKey("store", Store)
DIAL = web.AppKey("dial", Dial)


def create_app(store: Store, dial: Dial, password: SecretStr | None = None) -> web.Application:
    app = web.Application(middlewares=[json_errors, _explain_not_found])
    app[HOST] = LOOPBACK
    if password is not None:
        app[PASSWORD] = password
    app[STORE] = store
    app[DIAL] = dial
    enable_event_streams(app)
    app.router.add_get("/", _show_page)
    app.router.add_get("/health", _show_health)
    app.router.add_get("/api/messages", _list_messages)
    app.router.add_delete("/api/messages", _empty)
    app.router.add_get("/api/stats", _show_stats)
    app.router.add_get("/api/faults", _show_faults)
    app.router.add_put("/api/faults", _turn_faults)
    app.router.add_get("/api/events", _send_events, allow_head=False)
    add_assets(app, PAGES / "assets")
    return app


@web.middleware
async def _explain_not_found(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return error_json(404, "not found; GET /api/messages lists the emails")


async def _show_page(request: web.Request) -> web.Response:
    return html_page("inbox.html", PAGES, keep=KEEP)


async def _show_health(request: web.Request) -> web.Response:
    return pretty_json({"status": "ok"})


async def _list_messages(request: web.Request) -> web.Response:
    query = request.query
    limit = query.get("limit", "50")
    if not re.fullmatch(r"[0-9]{1,5}", limit) or not 1 <= int(limit) <= KEEP:
        return error_json(400, f"must be a whole number from 1 to {KEEP}", field="limit")
    store = request.app[STORE]
    messages = store.newest(to=query.get("to"), message_id=query.get("message_id"))[: int(limit)]
    return pretty_json([await _shown(message, store) for message in messages])


async def _shown(message: Message, store: Store) -> dict[str, object]:
    """Parse one email. Parsing thousands takes time, so the event loop may accept other emails before each."""
    await asyncio.sleep(0)
    return message.to_dict(store.copies(message.id))


async def _empty(request: web.Request) -> web.Response:
    request.app[STORE].empty()
    request.app[DIAL].forget_attempts()
    return await _show_stats(request)


async def _show_stats(request: web.Request) -> web.Response:
    return pretty_json(request.app[STORE].stats())


async def _show_faults(request: web.Request) -> web.Response:
    return pretty_json(request.app[DIAL].faults.model_dump())


async def _turn_faults(request: web.Request) -> web.Response:
    try:
        request.app[DIAL].turn(await request.read())
    except BadFaults as error:
        return error_json(400, error.reason, field=error.field)
    return await _show_faults(request)


async def _send_events(request: web.Request) -> web.StreamResponse:
    store = request.app[STORE]
    last = (-1, b"")

    async def current_stats() -> bytes:
        nonlocal last
        if last[0] != store.changes:
            last = (store.changes, orjson.dumps(store.stats()))
        return last[1]

    return await event_stream(request, current_stats, EVENT_SECONDS)
