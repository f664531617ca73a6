"""Which requests a server on loopback answers: those of its own pages and of programs, not those of foreign pages.

A GET that sends mail is a teaching device, and any web page could make its reader's browser send one. Three headers
that a page cannot forge tell such requests apart: Host (DNS rebinding), Origin, and Fetch Metadata (Sec-Fetch-Site,
https://www.w3.org/TR/fetch-metadata/). A real system would send mail by POST with a token.

Changes (every method but GET, HEAD and OPTIONS) come from this machine only, unless PAGE_PASSWORD is set. Behind a
reverse proxy on this machine every client seems to be on it: then set PAGE_PASSWORD.
"""

import base64
import hmac
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from pydantic import SecretStr

from common.settings import is_loopback

HOST = web.AppKey("host", str)
PASSWORD = web.AppKey("password", SecretStr)
_READING = (hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS)
_WILDCARDS = ("0.0.0.0", "::", "")


def check_origin(request: web.Request) -> None:
    """Raises HTTPForbidden, HTTPUnauthorized or HTTPBadRequest with the reason."""
    headers = request.headers
    host = headers.get(hdrs.HOST, "")
    if not _is_our_name(host, request.app[HOST]):
        raise web.HTTPForbidden(text="this Host is not a name of this server")
    origin = headers.get(hdrs.ORIGIN)
    if origin is not None and not _same_origin(origin, host):
        raise web.HTTPForbidden(text="this Origin is not ours")
    if headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none") and not _is_link_to_page(request):
        raise web.HTTPForbidden(text="not from another site")
    if "prefetch" in headers.get("Sec-Purpose", "") or "prefetch" in headers.get("Purpose", ""):
        raise web.HTTPForbidden(text="not ahead of the reader's click")
    if request.method not in _READING:
        _check_client(request)
    if headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower() not in ("", "identity"):
        raise web.HTTPBadRequest(text="a compressed body is not accepted")


def check_not_linked(request: web.Request) -> None:
    """For a GET that changes something: no page of another port may link to it. Raises HTTPForbidden."""
    if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        raise web.HTTPForbidden(text="not from another site")


def exposure(host: str, has_password: bool) -> str | None:
    """One line for the log when clients on other machines can reach this server."""
    if is_loopback(host):
        return None
    changes = "with PAGE_PASSWORD" if has_password else "from this machine only (PAGE_PASSWORD is not set)"
    return (
        f"HOST={host}: every client that reaches this port can send emails and read these pages, the emails in them "
        f"included; the pages accept changes {changes}"
    )


def _is_link_to_page(request: web.Request) -> bool:
    """A link from the inbox (same host, another port) to a strategy's page, or the other way."""
    headers = request.headers
    return (
        request.method == hdrs.METH_GET
        and headers["Sec-Fetch-Site"] == "same-site"
        and headers.get("Sec-Fetch-Mode") == "navigate"
        and headers.get("Sec-Fetch-Dest", "document") == "document"
    )


def _check_client(request: web.Request) -> None:
    password = request.config_dict.get(PASSWORD)
    if password is None:
        if not _is_this_machine(request.remote):
            raise web.HTTPForbidden(text="changes come from this machine only, unless PAGE_PASSWORD is set")
    elif not _has_password(request.headers.get(hdrs.AUTHORIZATION, ""), password):
        raise web.HTTPUnauthorized(
            text="this needs PAGE_PASSWORD; any user name will do",
            headers={hdrs.WWW_AUTHENTICATE: 'Basic realm="changes", charset="UTF-8"'},
        )


def _has_password(header: str, password: SecretStr) -> bool:
    """HTTP Basic (RFC 7617); the user name is not looked at."""
    scheme, _, credentials = header.partition(" ")
    try:
        given = base64.b64decode(credentials.strip(), validate=True).partition(b":")[2]
    except ValueError:
        return False
    return scheme.lower() == "basic" and hmac.compare_digest(given, password.get_secret_value().encode())


def _is_this_machine(remote: str | None) -> bool:
    """A Unix socket has no address, and its clients are on this machine."""
    try:
        address = ip_address((remote or "127.0.0.1").partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


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
