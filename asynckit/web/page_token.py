"""A token against cross-site request forgery: a form must post the token of its page, which no other site can read.

The token is a signature of the page's name with a random key of this process, so nothing is stored. After a restart you
must reload an open page.
"""

import hashlib
import hmac
import secrets

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

FIELD = "token"
HEADER = "X-Token"

_KEY = secrets.token_bytes(32)


def page_token(page: str) -> str:
    """The token of the page (a path such as "/resque"). Put it into the page's forms as the field `token`."""
    return hmac.new(_KEY, page.encode(), hashlib.sha256).hexdigest()


async def check_token(request: web.Request, page: str) -> None:
    """Raises HTTPForbidden unless the form field `token`, or the header X-Token, is the page's own.

    A body that is not a form raises HTTPBadRequest.
    """
    try:
        given = request.headers.get(HEADER) or str((await request.post()).get(FIELD, ""))
    except (ValueError, LookupError, HttpProcessingError):  # invalid bytes for the charset, unknown charset, …
        raise web.HTTPBadRequest(text="the body is not a form") from None
    if not hmac.compare_digest(given.encode("utf-8", "replace"), page_token(page).encode()):
        raise web.HTTPForbidden(text="the page's token is missing or out of date: reload the page")
