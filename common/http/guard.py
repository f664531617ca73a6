"""The guard: it refuses requests that a page of another site made the browser send.

Here a GET sends mail, which keeps the lesson short; but any web page could make its reader's browser send such a GET.
Three headers that a page cannot forge reveal these requests: Host (against DNS rebinding), Origin, and Sec-Fetch-Site
(Fetch Metadata, https://www.w3.org/TR/fetch-metadata/). A production system would send mail by POST with a token.

Changes (every method but GET, HEAD and OPTIONS) are accepted only from this machine, unless PAGE_PASSWORD is set. Set
it behind a reverse proxy on this machine, because all clients of the proxy appear to be on this machine.
"""

import base64
import hmac
import re
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from aiohttp import hdrs, web
from pydantic import SecretStr

from common.address import is_loopback

HOST = web.AppKey("host", str)
PASSWORD = web.AppKey("password", SecretStr)
_READING = (hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS)
_HOST = re.compile(r"[^\s/?#\\]*")
_WILDCARDS = ("0.0.0.0", "::", "")


def check_origin(request: web.Request) -> None:
    """Check where a request comes from. Raises HTTPForbidden, HTTPUnauthorized or HTTPBadRequest with the reason."""
    headers = request.headers
    host = _host_of(request)
    if not _is_our_name(host, request.app[HOST]):
        raise web.HTTPForbidden(text="this Host is not a name of this server")
    origin = headers.get(hdrs.ORIGIN)
    if origin is not None and not _same_origin(origin, host):
        raise web.HTTPForbidden(text="this Origin is not this server")
    if headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none") and not _is_link_to_page(request):
        raise web.HTTPForbidden(text="requests from another site are refused")
    if "prefetch" in headers.get("Sec-Purpose", "") or "prefetch" in headers.get("Purpose", ""):
        raise web.HTTPForbidden(text="prefetching is refused")
    if request.method not in _READING:
        _check_client(request)
    if headers.get(hdrs.CONTENT_ENCODING, "identity").strip().lower() not in ("", "identity"):
        raise web.HTTPBadRequest(text="a compressed body is not accepted")


def _host_of(request: web.Request) -> str:
    """The host and port that a request names: those of an absolute URL in its first line, else its Host header
    (RFC 9112, 3.2.2). Raises HTTPBadRequest if the header is missing or invalid (3.2).
    """
    header = request.headers.get(hdrs.HOST)
    if header is None or not _HOST.fullmatch(header):
        raise web.HTTPBadRequest(text="the Host header is missing or invalid")
    target = request.raw_path
    return header if target.startswith(("/", "*")) else urlsplit(target).netloc


def check_not_linked(request: web.Request) -> None:
    """Check a GET that changes something: refuse links from pages on other ports too. Raises HTTPForbidden."""
    if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        raise web.HTTPForbidden(text="requests from another site are refused")


def exposure(host: str, has_password: bool) -> str | None:
    """A warning for the log if clients on other machines can reach this server, else None."""
    if is_loopback(host):
        return None
    changes = "with PAGE_PASSWORD" if has_password else "from this machine only (PAGE_PASSWORD is not set)"
    return (
        f"HOST={host}: every client that reaches this port can send emails and read the pages, including the emails on "
        f"them; the pages accept changes {changes}"
    )


def _is_link_to_page(request: web.Request) -> bool:
    """Whether the user follows a link from the inbox (same host, another port) to a strategy's page, or back."""
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
            raise web.HTTPForbidden(text="changes are accepted only from this machine, unless PAGE_PASSWORD is set")
    elif not _has_password(request.headers.get(hdrs.AUTHORIZATION, ""), password):
        raise web.HTTPUnauthorized(
            text="this needs PAGE_PASSWORD, with any user name",
            headers={hdrs.WWW_AUTHENTICATE: 'Basic realm="changes", charset="UTF-8"'},
        )


def _has_password(header: str, password: SecretStr) -> bool:
    """Whether an HTTP Basic header (RFC 7617) has this password. The user name is ignored."""
    scheme, _, credentials = header.partition(" ")
    try:
        given = base64.b64decode(credentials.strip(), validate=True).partition(b":")[2]
    except ValueError:
        return False
    return scheme.lower() == "basic" and hmac.compare_digest(given, password.get_secret_value().encode())


def _is_this_machine(remote: str | None) -> bool:
    """Whether a client's address is on this machine. None means a Unix socket, whose clients always are."""
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
    """Whether a Host header names this server: a loopback name or HOST; any IP address if HOST is a wildcard.

    A user part (RFC 9110, 4.2.4) is never part of a name of this server.
    """
    if "@" in host:
        return False
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if is_loopback(name) or name == listening_on.lower():
        return True
    return listening_on in _WILDCARDS and _is_address(name)


def _is_address(name: str) -> bool:
    """Whether it is an IP address. DNS rebinding needs a name, so an address is safe."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
