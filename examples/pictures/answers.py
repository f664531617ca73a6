"""Refuses requests that another site made the browser send, and answers every error as a page or as JSON."""

import logging
from pathlib import Path

from aiohttp import hdrs, web

from asynckit.log_limit import OncePerSecond
from asynckit.web.pages import Handler, error_json, html_page
from common.http.guard import check_origin

from .database import DOWN, describe
from .negotiation import VARY, wants_html
from .store import StoreDown

PAGES = Path(__file__).parent / "pages"
AGAIN_SECONDS = 2  # a client may try again, after an outage of the database or the store
KEPT = (hdrs.ALLOW, hdrs.WWW_AUTHENTICATE, hdrs.CONNECTION)  # headers of an error

log = logging.getLogger(__name__)
often = OncePerSecond(log)


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        check_origin(request)
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        headers = {str(name): error.headers[name] for name in KEPT if name in error.headers}
        return _answer(request, error.status, _reason(error), headers)
    except DOWN as error:
        often.warning("cannot answer %s: %s", request.path, describe(error))
        return _answer(request, 503, "the database cannot be reached", {hdrs.RETRY_AFTER: str(AGAIN_SECONDS)})
    except StoreDown as error:
        often.warning("cannot answer %s: the store: %s", request.path, error)
        return _answer(request, 503, "the file store cannot be reached", {hdrs.RETRY_AFTER: str(AGAIN_SECONDS)})
    except Exception:
        log.exception("error while answering %s %s", request.method, request.path)
        return _answer(request, 500, "an error in this program; its log has the traceback", {})


def _reason(error: web.HTTPException) -> str:
    text = error.text or ""
    return error.reason if text == f"{error.status}: {error.reason}" or not text else text


def _answer(request: web.Request, status: int, reason: str, headers: dict[str, str]) -> web.Response:
    if wants_html(request):
        response = html_page("error.html", PAGES, reason=reason)
        response.set_status(status)
    else:
        response = error_json(status, reason)
    response.headers.update(VARY | headers)
    return response
