"""Checks `redis://`, `rediss://` and `unix://` URLs. redis-py is lenient: `redis://host/abc` would mean database 0."""

import re
from urllib.parse import SplitResult, urlsplit

from .host_names import check_host_name

EXPECTED = "expected redis://user:password@host:6379/0"


def split_url(url: str) -> SplitResult:
    """Like urlsplit, but the ValueError never contains the user or the password, as urlsplit's own may."""
    try:
        return urlsplit(url)
    except ValueError:
        raise ValueError(f"is not a URL; {EXPECTED}") from None


def host_and_port(text: str, default_port: int, expected: str) -> tuple[str, int]:
    """Parse one address of a URL that lists several. Raises ValueError; `expected` is a part of its message."""
    try:
        parts = urlsplit(f"//{text}")
        if not parts.hostname or parts.port == 0:
            raise ValueError
    except ValueError:
        raise ValueError(f"has a bad host or port; {expected}") from None
    return parts.hostname, parts.port or default_port


def check_redis_url(url: str) -> None:
    """Raises ValueError. Its message contains no part of the URL, because the URL may contain a password."""
    parts = split_url(url)
    try:
        port = parts.port
    except ValueError:
        raise ValueError(f"is not a URL; {EXPECTED}") from None
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError("must begin with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://")
    if parts.scheme == "unix":
        if not parts.path:
            raise ValueError("names no socket; expected unix:///path/to/socket?db=0")
    elif not parts.hostname:
        raise ValueError(f"names no host; {EXPECTED}")
    elif port == 0 or parts.fragment or not re.fullmatch("/?[0-9]*", parts.path):
        raise ValueError("must end with host, port and number; percent-encode / ? # and @ in user and password")
    else:
        check_host_name(parts.hostname)
