"""Responses to a browser: pages that load nothing from other sites, their assets, and JSON that is never cached."""

from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path

import jinja2
import orjson
from aiohttp import hdrs, web
from multidict import CIMultiDict

SHARED_ASSETS = Path(__file__).parent / "assets"
CONTENT_SECURITY_POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
_JSON_HEADERS = CIMultiDict(
    {
        hdrs.CONTENT_TYPE: "application/json; charset=utf-8",
        hdrs.CACHE_CONTROL: "no-store",
        "X-Content-Type-Options": "nosniff",
    }
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@cache
def _templates(folder: Path) -> jinja2.Environment:
    return jinja2.Environment(loader=jinja2.FileSystemLoader(folder), autoescape=True)


def html_page(template: str, folder: Path, /, **values: object) -> web.Response:
    """Render a page. Its values are escaped, and it can load nothing from other sites."""
    return web.Response(
        text=_templates(folder).get_template(template).render(values),
        content_type="text/html",
        headers={
            "Content-Security-Policy": CONTENT_SECURITY_POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",  # with no-referrer, browsers post forms with "Origin: null"
            hdrs.CACHE_CONTROL: "no-store",
        },
    )


def pretty_json(body: object, status: int = 200) -> web.Response:
    """Indented JSON. Never cached: a browser that showed a cached answer would not have sent the email."""
    return web.Response(
        body=orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE),
        status=status,
        headers=_JSON_HEADERS,
    )


def error_json(status: int, reason: str, **more: str) -> web.Response:
    return pretty_json({"error": {**more, "reason": reason}}, status=status)


def add_assets(app: web.Application, folder: Path) -> None:
    """Serve the files of `folder` and the shared style sheet at `/assets/`."""
    files = {path.name: path for path in (*SHARED_ASSETS.iterdir(), *folder.iterdir())}

    async def send(request: web.Request) -> web.FileResponse:
        path = files.get(request.match_info["name"])
        if path is None:
            raise web.HTTPNotFound
        return web.FileResponse(path)

    app.router.add_get("/assets/{name}", send)
