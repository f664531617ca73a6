"""The actions of the buttons: only by POST with the token of a page, followed by a redirect back to the page.

The page then shows one of the sentences below; it never repeats a value that was posted.
"""

from urllib.parse import urlencode

from aiohttp import web

from asynckit.web.page_token import check_token

from ..failed import CannotRequeue, NotThere
from .parts import PARTS, PATH, number

SENTENCES = {
    "paused": "The queue is paused. Jobs in flight continue.",
    "resumed": "The queue is resumed.",
    "retried": "The job is back in its queue.",
    "removed": "The job is removed.",
    "retried-all": "{count} jobs are back in their queues.",
    "retried-some": "{count} jobs are back in their queues. The others cannot be retried; each one says why.",
    "removed-all": "{count} failed jobs are removed.",
    "ran": "The job is in its queue now.",
    "gone": "Nothing has changed: the job was no longer there.",
    "unfit": "Nothing has changed: it is not a valid job.",
}
SECONDS = {"300": 300.0, "3600": 3600.0, "": None}
"""The lengths of a pause in seconds; None: until it is resumed."""


def notice(request: web.Request) -> str:
    """What the action that redirected here has done."""
    count = number(request.query.get("count"), 0)
    return SENTENCES.get(request.query.get("done", ""), "").format(count=f"{count:,}")


async def _form(request: web.Request) -> dict[str, str]:
    """The fields of the form. Raises HTTPForbidden without the page's token."""
    await check_token(request, request.app[PATH])
    return {name: value for name, value in (await request.post()).items() if isinstance(value, str)}


def _back(request: web.Request, page: str, done: str, **query: str | int) -> web.Response:
    """303: the browser gets the page, so that reloading it does not repeat the action."""
    return web.Response(
        status=303, headers={"Location": f"{request.app[PATH]}/{page}?{urlencode({'done': done, **query})}"}
    )


async def pause(request: web.Request) -> web.Response:
    form = await _form(request)
    seconds = SECONDS.get(form.get("seconds", ""))
    await request.app[PARTS].queue.pause(form.get("queue", ""), "paused on the dashboard", seconds)
    return _back(request, "queues", "paused")


async def resume(request: web.Request) -> web.Response:
    form = await _form(request)
    await request.app[PARTS].queue.resume(form.get("queue", ""))
    return _back(request, "queues", "resumed")


async def retry(request: web.Request) -> web.Response:
    form = await _form(request)
    try:
        await request.app[PARTS].failed.requeue(form.get("id", "?"), number(form.get("number"), 1))
    except NotThere:
        return _back(request, "failed", "gone", **_place(form))
    except CannotRequeue:
        return _back(request, "failed", "unfit", **_place(form))
    return _back(request, "failed", "retried", **_place(form))


async def remove(request: web.Request) -> web.Response:
    form = await _form(request)
    try:
        await request.app[PARTS].failed.remove(form.get("id", "?"), number(form.get("number"), 1))
    except NotThere:
        return _back(request, "failed", "gone", **_place(form))
    return _back(request, "failed", "removed", **_place(form))


def _place(form: dict[str, str]) -> dict[str, int]:
    """The page of the failed list on which the button was."""
    before = number(form.get("before"), 0)
    return {"before": before} if before else {}


async def retry_all(request: web.Request) -> web.Response:
    await _form(request)
    done, left = await request.app[PARTS].failed.requeue_all()
    return _back(request, "failed", "retried-some" if left else "retried-all", count=done)


async def remove_all(request: web.Request) -> web.Response:
    await _form(request)
    return _back(request, "failed", "removed-all", count=await request.app[PARTS].failed.remove_all())


async def run_now(request: web.Request) -> web.Response:
    form = await _form(request)
    try:
        await request.app[PARTS].delayed.run_now(*_fields_of_delayed(form))
    except NotThere:
        return _back(request, "delayed", "gone")
    except CannotRequeue:
        return _back(request, "delayed", "unfit")
    return _back(request, "delayed", "ran")


async def remove_delayed(request: web.Request) -> web.Response:
    form = await _form(request)
    try:
        await request.app[PARTS].delayed.remove(*_fields_of_delayed(form))
    except NotThere:
        return _back(request, "delayed", "gone")
    return _back(request, "delayed", "removed")


def _fields_of_delayed(form: dict[str, str]) -> tuple[int, str, int]:
    return number(form.get("second"), 0), form.get("id", "?"), number(form.get("place"), 0)
