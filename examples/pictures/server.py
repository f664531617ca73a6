"""The web server: upload, list, rename, replace and delete pictures, on pages and as JSON.

GET    /files                 the newest pictures; ?before=ID: older ones     GET  /files/live   the same, as events
POST   /files                 a form with `file` and perhaps `name`: 201      GET  /health       200 or 503
GET    /files/ID              one picture                                     GET  /queue        the queue's dashboard
PUT    /files/ID              JSON {"name"}, or a form with `name`, `file` or both
DELETE /files/ID              the row and all files: 204
GET    /files/ID/VERSION      VERSION: thumbnail.webp or large.webp
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID, uuid4

import orjson
from aiohttp import hdrs, web

from asynckit.log_limit import OncePerSecond
from asynckit.tasks import end_tasks, keep_running
from asynckit.web.event_stream import enable_event_streams, event_stream
from asynckit.web.pages import add_assets, html_page, pretty_json
from common.http.frame import BROKEN_BODY
from common.http.guard import HOST, PASSWORD
from common.http.siblings import SHARES_PORT
from resque.dashboard import dashboard

from .answers import PAGES, errors
from .database import DOWN, describe, open_database
from .negotiation import VARY, wants_html
from .outbox import Relay
from .pictures import MOST, Picture, Pictures, Upload, new_picture_id
from .settings import PictureSettings
from .store import LARGE, ORIGINAL, THUMBNAIL, Missing, Store, StoreDown, key_of
from .upload import BODY_SECONDS, Form, clean_name, read_form
from .worker import queue_module

LIVE_SECONDS = 0.3
PICTURE = "/files/{id:[0-9a-f-]{36}}"
UNCHANGING = "private, max-age=31536000, immutable"

log = logging.getLogger(__name__)
often = OncePerSecond(log)


@dataclass
class Site:
    settings: PictureSettings
    pictures: Pictures
    store: Store
    relay: Relay


SITE = web.AppKey("site", Site)
SETTINGS = web.AppKey("settings", PictureSettings)


def create_app(settings: PictureSettings) -> web.Application:
    app = web.Application(middlewares=[errors], client_max_size=1 << 16)  # of bodies other than uploads
    app[SETTINGS], app[HOST], app[SHARES_PORT] = settings, settings.host, settings.servers > 1
    if settings.page_password is not None:
        app[PASSWORD] = settings.page_password
    app.cleanup_ctx.append(open_site)
    enable_event_streams(app)
    add_assets(app, PAGES / "assets")
    app.router.add_get("/", lead_to_list)
    app.router.add_get("/health", show_health)
    app.router.add_get("/files", show_list)
    app.router.add_post("/files", add_picture)
    app.router.add_get("/files/live", stream_list, allow_head=False)
    app.router.add_get(PICTURE, show_picture)
    app.router.add_put(PICTURE, change_picture)
    app.router.add_delete(PICTURE, delete_picture)
    app.router.add_get(f"{PICTURE}/{{version:{THUMBNAIL}|{LARGE}}}", send_version)
    if settings.queue == "resque":
        app.add_subapp("/queue", dashboard(settings.redis, path="/queue"))
    return app


async def open_site(app: web.Application) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    async with open_database(settings.database) as database, queue_module(settings).open_queue(settings) as send:
        relay = Relay(database, send)
        app[SITE] = Site(settings, Pictures(database), Store(settings.store), relay)
        relaying = keep_running(relay.run, "the outbox")
        yield
        await end_tasks([relaying])


async def lead_to_list(request: web.Request) -> web.Response:
    raise web.HTTPSeeOther("/files")


async def show_health(request: web.Request) -> web.Response:
    await request.app[SITE].pictures.check()
    return pretty_json({"status": "ok"})


async def show_list(request: web.Request) -> web.Response:
    before = _uuid(request.query["before"]) if "before" in request.query else None
    pictures = await request.app[SITE].pictures.newest(before)
    more = str(pictures[-1].id) if len(pictures) == MOST else None
    if not wants_html(request):
        return _json({"files": [picture.to_dict() for picture in pictures], "before": more})
    settings = request.app[SETTINGS]
    return _page(
        "files.html", pictures=[picture.to_dict() for picture in pictures], more=more, first=before is None,
        max_bytes=settings.max_upload_bytes, dashboard=settings.queue == "resque",
    )  # fmt: skip


async def stream_list(request: web.Request) -> web.StreamResponse:
    site = request.app[SITE]

    async def look() -> bytes:
        try:
            state = {"files": [picture.to_dict() for picture in await site.pictures.newest()]}
        except DOWN as error:
            often.warning("cannot read the list: %s", describe(error))
            return orjson.dumps({"problem": "The database cannot be reached; trying again."})
        return orjson.dumps(state)

    return await event_stream(request, look, LIVE_SECONDS)


async def add_picture(request: web.Request) -> web.Response:
    site = request.app[SITE]
    await site.pictures.check()  # before the client sends millions of bytes
    async with read_form(request, site.settings.max_upload_bytes) as form:
        if form.file is None:
            raise web.HTTPBadRequest(text="the form has no file")
        upload = await _store(site, new_picture_id(), form)
    picture = await site.pictures.add(upload, form.name or "picture")
    site.relay.wake()
    if wants_html(request):
        raise web.HTTPSeeOther("/files")
    return _json(picture.to_dict(), status=201, headers={hdrs.LOCATION: f"/files/{picture.id}"})


async def _store(site: Site, picture: UUID, form: Form) -> Upload:
    """Store the original. Its row comes after it: if this process dies in between, the sweep deletes the file."""
    assert form.file is not None
    upload = Upload(picture, uuid4(), form.format, form.bytes)
    await site.store.put(key_of(picture, upload.id, ORIGINAL), form.file)
    return upload


async def show_picture(request: web.Request) -> web.Response:
    picture = await _picture(request)
    if wants_html(request):
        return _page("file.html", picture=picture.to_dict(), max_bytes=request.app[SETTINGS].max_upload_bytes)
    return _json(picture.to_dict())


async def change_picture(request: web.Request) -> web.Response:
    """A new name, a new original, or both."""
    if request.content_type == "application/json":
        return await _rename(request, await _name_of(request))
    site, before = request.app[SITE], await _picture(request)
    async with read_form(request, site.settings.max_upload_bytes) as form:
        if form.file is None:
            return await _rename(request, form.name)
        upload = await _store(site, before.id, form)
    changed = await site.pictures.replace(upload, form.name)
    if changed is None:  # deleted in the meantime
        await _delete_files(site, before.id)
        raise _no_picture()
    site.relay.wake()
    await _delete_files(site, before.id, before.upload)
    return _json(changed.to_dict())


async def _rename(request: web.Request, name: str | None) -> web.Response:
    if name is None:
        raise web.HTTPBadRequest(text="expected a name, or a file")
    changed = await request.app[SITE].pictures.rename(_uuid(request.match_info["id"]), name)
    if changed is None:
        raise _no_picture()
    return _json(changed.to_dict())


async def _name_of(request: web.Request) -> str | None:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await request.json(loads=orjson.loads)
    except (ValueError, TimeoutError, *BROKEN_BODY):
        raise web.HTTPBadRequest(text="the body is not JSON") from None
    name = body.get("name") if isinstance(body, dict) else None
    return clean_name(name) if isinstance(name, str) else None


async def delete_picture(request: web.Request) -> web.Response:
    """First the row, then the files: if this process dies in between, the sweep deletes them."""
    site, picture = request.app[SITE], _uuid(request.match_info["id"])
    if not await site.pictures.delete(picture):
        raise _no_picture()
    await _delete_files(site, picture)
    return web.Response(status=204)


async def _delete_files(site: Site, picture: UUID, upload: UUID | None = None) -> None:
    try:
        await site.store.delete(picture, upload)
    except StoreDown as error:
        log.warning("files of %s stay until the next sweep: %s", picture, error)


async def send_version(request: web.Request) -> web.Response:
    """The address contains the upload, so that a browser may keep the answer forever."""
    site, picture = request.app[SITE], await _picture(request)
    if picture.state != "ready":
        raise web.HTTPNotFound(text=f"there is no such version: the picture is {picture.state}")
    current = request.query.get("upload") == str(picture.upload)
    try:
        data = await site.store.get(key_of(picture.id, picture.upload, request.match_info["version"]))
    except Missing:
        raise web.HTTPNotFound(text="the store has lost this file; it will be made again") from None
    headers = {
        hdrs.CACHE_CONTROL: UNCHANGING if current else "no-cache",
        "Content-Security-Policy": "default-src 'none'",
        "X-Content-Type-Options": "nosniff",
    }
    return web.Response(body=data, content_type="image/webp", headers=headers)


async def _picture(request: web.Request) -> Picture:
    """Raises HTTPNotFound."""
    picture = await request.app[SITE].pictures.get(_uuid(request.match_info["id"]))
    if picture is None:
        raise _no_picture()
    return picture


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise _no_picture() from None


def _no_picture() -> web.HTTPException:
    return web.HTTPNotFound(text="there is no such picture")


def _json(body: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    response = pretty_json(body, status)
    response.headers.update(VARY | (headers or {}))
    return response


def _page(template: str, **values: object) -> web.Response:
    response = html_page(template, PAGES, **values)
    response.headers.update(VARY)
    return response
