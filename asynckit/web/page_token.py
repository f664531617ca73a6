"""A token for the pages that change something: whoever posts it has read the page, and no foreign page could read it.

A token is the signature of the page's name with a key of this process's own, so there is nothing to store. After a
restart an open page must be loaded again.
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
    """The token of the page (a path such as "/resque"), to be put into its forms as the field `token`."""
    return hmac.new(_KEY, page.encode(), hashlib.sha256).hexdigest()


async def check_token(request: web.Request, page: str) -> None:
    """Raises HTTPForbidden unless the form field `token`, or the header X-Token, is the page's own.

    A body that is no form raises HTTPBadRequest.
    """
    try:
        given = request.headers.get(HEADER) or str((await request.post()).get(FIELD, ""))
    except (ValueError, LookupError, HttpProcessingError):  # bytes that are not in its charset, no such charset, …
        raise web.HTTPBadRequest(text="this is not a form") from None
    if not hmac.compare_digest(given.encode("utf-8", "replace"), page_token(page).encode()):
        raise web.HTTPForbidden(text="this needs the token of an open page: load it again")
