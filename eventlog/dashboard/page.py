"""The page at /log: the partitions, the place of each consumer in them, and the parked events.

    GET  /log          the page
    GET  /log/state    everything that it shows, as JSON
    GET  /log/events   the same as server-sent events, after each change
    POST /log/replay   consumer, from: beginning, end, a time (unix seconds) or a position
    POST /log/retry    consumer, position; without a position all parked events
    POST /log/discard  the same; deletes the parked events
    POST /log/trim     older_than (seconds), force: yes also deletes events that are not handled

A POST needs the page's token. Its answer is JSON: what was done, or a 400 with the reason.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from asynckit.web.event_stream import enable_event_streams, event_stream
from asynckit.web.page_token import check_token, page_token
from asynckit.web.pages import add_assets, error_json, html_page, pretty_json

from ..errors import LOG_ERRORS, describe
from ..interface import Counted, EventLog
from ..log import BEGINNING, END
from ..parked import Parked

PAGE = "/log"
LOOK_SECONDS = 0.5
PARTITIONS_SHOWN = 40
PARKED_SHOWN = 50  # for each consumer
TEXT_SHOWN = 2000  # characters of an event
LARGEST = 2**53  # JavaScript cannot represent every larger integer

FOLDER = Path(__file__).parent
ASSETS = FOLDER / "assets"

Opened = AbstractAsyncContextManager[tuple[EventLog, Counted]]

LOG: web.AppKey[EventLog] = web.AppKey("log")
COUNTED: web.AppKey[Counted] = web.AppKey("counted")


def log_page(open_log: Callable[[], Opened]) -> web.Application:
    """The page's application. Mount it at `/log` of an application that refuses cross-site requests.

    `open_log` opens the log, and a function that returns counts for the hour of a time (unix seconds), such as emails
    by domain, the largest first.
    """
    app = web.Application()
    enable_event_streams(app)
    app.cleanup_ctx.append(_opened(open_log))
    app.router.add_get("", _show_page)
    app.router.add_get("/state", _show_state)
    app.router.add_get("/events", _send_events, allow_head=False)
    app.router.add_post("/replay", _replay)
    app.router.add_post("/retry", _retry)
    app.router.add_post("/discard", _discard)
    app.router.add_post("/trim", _trim)
    add_assets(app, ASSETS)
    return app


def _opened(open_log: Callable[[], Opened]) -> Callable[[web.Application], AsyncIterator[None]]:
    async def opened(app: web.Application) -> AsyncIterator[None]:
        async with open_log() as (app[LOG], app[COUNTED]):
            yield

    return opened


async def _show_page(request: web.Request) -> web.Response:
    try:
        begin = await state(request.app)
    except LOG_ERRORS:
        begin = None  # the page shows the error when it connects to /log/events
    return html_page("log.html", FOLDER, token=page_token(PAGE), state=begin)


async def _show_state(request: web.Request) -> web.Response:
    return pretty_json(await _answered(state(request.app)))


async def _send_events(request: web.Request) -> web.StreamResponse:
    async def look() -> bytes:
        try:
            return orjson.dumps(await state(request.app))
        except LOG_ERRORS as error:
            return orjson.dumps({"error": describe(error)})

    return await event_stream(request, look, LOOK_SECONDS)


async def state(app: web.Application) -> dict[str, Any]:
    """Everything that the page shows. Strings may have any content, because they come from Redis. Raises RedisError."""
    log = app[LOG]
    partitions = await log.partitions(newest=PARTITIONS_SHOWN)
    now = await log.now()
    found = {
        "now": int(now),  # whole seconds: each change of the state is sent to every page
        "events": partitions[-1].first + partitions[-1].length if partitions else 0,
        "older": partitions[0].first if partitions else 0,
        "limits": log.limits,
        "partitions": [asdict(partition) for partition in partitions],
        "consumers": [await _consumer(log, name) for name in await log.consumers()],
        "audit": await _audit(app, now),
    }
    return {name: _shown(value) for name, value in found.items()}


def _shown(value: Any) -> Any:
    """Replaces numbers that a page cannot show with None; bad data may have such numbers."""
    match value:
        case dict():
            return {name: _shown(member) for name, member in value.items()}
        case list():
            return [_shown(member) for member in value]
        case int() | float() if not abs(value) <= LARGEST:  # `not` also catches NaN
            return None
        case _:
            return value


async def _consumer(log: EventLog, name: str) -> dict[str, Any]:
    """A consumer with invalid data is shown with the error, and the other consumers as usual."""
    try:
        lag = asdict(await log.lag(name))
        parked = await log.parked(name, PARKED_SHOWN)
        next_attempt = await log.next_attempt(name)
    except (ValueError, TypeError, KeyError, *LOG_ERRORS) as error:
        return {"name": name, "error": f"{type(error).__name__}: {error}"}
    lag["oldest_seconds"] = math.floor(lag["oldest_seconds"])
    seconds = None if next_attempt is None else math.ceil(next_attempt)
    return {"name": name, **lag, "next_attempt_seconds": seconds, "parked_events": [_parked(one) for one in parked]}


def _parked(parked: Parked) -> dict[str, Any]:
    text = parked.element.decode(errors="replace")
    return {**asdict(parked), "element": text[:TEXT_SHOWN] + ("…" if len(text) > TEXT_SHOWN else "")}


async def _audit(app: web.Application, now: float) -> dict[str, int]:
    try:
        return dict(list((await app[COUNTED](now)).items())[:20])
    except LOG_ERRORS:
        return {}


async def _replay(request: web.Request) -> web.Response:
    await check_token(request, PAGE)
    form = await request.post()
    consumer, start = str(form.get("consumer", "")), str(form.get("from", ""))
    log = request.app[LOG]
    if consumer not in await _answered(log.consumers()):
        return error_json(400, "there is no such consumer", field="consumer")
    try:
        await _answered(log.replay(consumer, start if start in (BEGINNING, END) else _time_or_position(start)))
    except ValueError as error:
        return error_json(400, str(error), field="from")
    return pretty_json({"done": f"{consumer} continues from {start}"})


def _time_or_position(text: str) -> str | float:
    try:
        seconds = float(text)
    except ValueError:
        return text
    if not 0 <= seconds < 1e11:
        raise ValueError("not a time in unix seconds")
    return seconds


async def _retry(request: web.Request) -> web.Response:
    return await _change_parked(request, request.app[LOG].unpark, "will be retried")


async def _discard(request: web.Request) -> web.Response:
    return await _change_parked(request, request.app[LOG].discard, "are discarded")


async def _change_parked(request: web.Request, change: Callable[..., Awaitable[int]], what: str) -> web.Response:
    await check_token(request, PAGE)
    form = await request.post()
    consumer, position = str(form.get("consumer", "")), str(form.get("position", ""))
    if consumer not in await _answered(request.app[LOG].consumers()):
        return error_json(400, "there is no such consumer", field="consumer")
    found = await _answered(change(consumer, *([position] if position else [])))
    return pretty_json({"done": f"{found} parked events of {consumer} {what}"})


async def _trim(request: web.Request) -> web.Response:
    await check_token(request, PAGE)
    form = await request.post()
    try:
        older_than = float(str(form.get("older_than", "")))
    except ValueError:
        older_than = -1.0
    if not 0 <= older_than < 1e11:
        return error_json(400, "must be a number of seconds", field="older_than")
    trimmed = await _answered(request.app[LOG].trim(older_than, force=form.get("force") == "yes"))
    kept = f"; {trimmed.kept_for} has not handled the rest" if trimmed.kept_for else ""
    return pretty_json({"done": f"{trimmed.events} events trimmed{kept}"})


async def _answered(answer: Awaitable[Any]) -> Any:
    """Raises HTTPServiceUnavailable instead of a RedisError."""
    try:
        return await answer
    except LOG_ERRORS as error:
        raise web.HTTPServiceUnavailable(text=describe(error)) from None
