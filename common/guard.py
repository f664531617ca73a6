"""Which requests a server on loopback answers: those of its own pages and of programs, not those of foreign pages.

A GET that sends mail is a teaching device, and any web page could make its reader's browser send one. Three headers
that a page cannot forge tell such requests apart: Host (DNS rebinding), Origin, and Fetch Metadata (Sec-Fetch-Site,
https://www.w3.org/TR/fetch-metadata/). A real system would send mail by POST with a token.
"""

from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from common.settings import is_loopback

HOST = web.AppKey("host", str)
_WILDCARDS = ("0.0.0.0", "::", "")


def check_origin(request: web.Request) -> None:
    """Raises HTTPForbidden with the reason."""
    headers = request.headers
    host = headers.get(hdrs.HOST, "")
    if not _is_our_name(host, request.app[HOST]):
        raise web.HTTPForbidden(text="this Host is not a name of this server")
    origin = headers.get(hdrs.ORIGIN)
    if origin is not None and not _same_origin(origin, host):
        raise web.HTTPForbidden(text="this Origin is not ours")
    if headers.get("Sec-Fetch-Site") == "cross-site":
        raise web.HTTPForbidden(text="not from another site")
    if "prefetch" in headers.get("Sec-Purpose", "") or "prefetch" in headers.get("Purpose", ""):
        raise web.HTTPForbidden(text="not ahead of the reader's click")


def _same_origin(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc == host
    except ValueError:
        return False


@lru_cache(maxsize=256)
def _is_our_name(host: str, listening_on: str) -> bool:
    """Names allowed: loopback names and HOST. A server that listens everywhere is also known by its addresses."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if is_loopback(name) or name == listening_on.lower():
        return True
    return listening_on in _WILDCARDS and _is_address(name)


def _is_address(name: str) -> bool:
    """An address cannot be rebound: only a name can be made to point here."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
