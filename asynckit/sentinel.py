"""Finding the primary of a Redis with Sentinel: `redis+sentinel://[user:password@]host[:port],host…/service[/db]`.

The sentinels watch a primary and its replicas, and promote a replica when the primary fails. Each connection attempt
asks them where the primary is, so a client needs no restart after a failover. `rediss+sentinel://` uses TLS for all of
them, with the same options (`?ssl_ca_certs=…`). The login in the URL is that of the primary;
`?sentinel_username=…&sentinel_password=…` is that of the sentinels.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode

import redis
from redis.asyncio import Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError
from redis.retry import Retry as BlockingRetry

from asynckit.redis_url import host_and_port, split_url

SCHEMES = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
SENTINEL_PORT = 26379
SENTINEL_SECONDS = 0.5  # how long one sentinel may take to answer
EXPECTED = "expected redis+sentinel://user:password@host1:26379,host2/service/0"


class SentinelUrl(NamedTuple):
    hosts: tuple[tuple[str, int], ...]
    service: str
    primary: str
    """A URL with the login, database and options of the primary; its host is that of the first sentinel."""
    options: dict[str, Any]
    """Of the connections to the sentinels."""


def read_sentinel_url(url: str) -> SentinelUrl | None:
    """None if the URL is of another kind. Raises ValueError with a reason that names no part of the URL."""
    parts = split_url(url)
    if parts.scheme not in SCHEMES:
        return None
    login, at, addresses = parts.netloc.rpartition("@")
    hosts = tuple(host_and_port(one, SENTINEL_PORT, EXPECTED) for one in addresses.split(",") if one)
    path = parts.path.strip("/").split("/")
    if not hosts or not path[0] or len(path) > 2 or (len(path) == 2 and not path[1].isdigit()) or parts.fragment:
        raise ValueError(f"names no sentinel or no service; {EXPECTED}")
    query = dict(parse_qsl(parts.query))
    options = tls_options(parts.query) if SCHEMES[parts.scheme] == "rediss" else {}
    for name in ("username", "password"):
        if value := query.pop(f"sentinel_{name}", None):
            options[name] = value
    (host, port), *_ = hosts
    bracketed = f"[{host}]" if ":" in host else quote(host)
    database = path[1] if len(path) == 2 else "0"
    primary = f"{SCHEMES[parts.scheme]}://{login}{at}{bracketed}:{port}/{database}"
    return SentinelUrl(hosts, path[0], f"{primary}?{urlencode(query)}" if query else primary, options)


def tls_options(query: str) -> dict[str, Any]:
    """The sentinels use those of the primary: its authority, and our certificate, if it asks for one."""
    given: dict[str, Any] = dict(parse_url(f"rediss://?{query}"))
    return {"ssl": True, **{name: value for name, value in given.items() if name.startswith("ssl_")}}


class FindsPrimary:
    """Mixed into a connection of redis-py, whose class has `sentinels`: asks them before it connects."""

    sentinels: SentinelUrl
    host: str
    port: int

    async def _connect(self) -> None:
        self.host, self.port = await find_primary(self.sentinels)
        await super()._connect()  # type: ignore[misc]


class BlockingFindsPrimary:
    """The same for a connection of a thread."""

    sentinels: SentinelUrl
    host: str
    port: int

    def _connect(self) -> Any:
        self.host, self.port = find_primary_blocking(self.sentinels)
        return super()._connect()  # type: ignore[misc]


async def find_primary(url: SentinelUrl) -> tuple[str, int]:
    """The primary's host and port, from the first sentinel that knows it. Raises ConnectionError when none does."""
    for host, port in url.hosts:
        with suppress(RedisError, OSError):
            async with Redis(host=host, port=port, retry=Retry(NoBackoff(), 0), **_limits(url)) as sentinel:
                if found := _read(await sentinel.execute_command(*_question(url))):  # type: ignore[no-untyped-call]
                    return found
    raise ConnectionError(f"no sentinel knows where the primary of {url.service} is")


def find_primary_blocking(url: SentinelUrl) -> tuple[str, int]:
    for host, port in url.hosts:
        sentinel: Any = redis.Redis(host=host, port=port, retry=BlockingRetry(NoBackoff(), 0), **_limits(url))
        with suppress(RedisError, OSError), sentinel:
            if found := _read(sentinel.execute_command(*_question(url))):
                return found
    raise ConnectionError(f"no sentinel knows where the primary of {url.service} is")


def _limits(url: SentinelUrl) -> dict[str, Any]:
    return {
        "socket_connect_timeout": SENTINEL_SECONDS,
        "socket_timeout": SENTINEL_SECONDS,
        "decode_responses": True,
        "protocol": 2,
        **url.options,
    }


def _question(url: SentinelUrl) -> Iterator[str]:
    # One word: redis-py has a parser of its own for the two words, which raises on nil.
    yield from ("SENTINEL", "get-master-addr-by-name", url.service)


def _read(answer: Any) -> tuple[str, int] | None:
    return (str(answer[0]), int(answer[1])) if answer else None
