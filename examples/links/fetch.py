"""One request, as a polite robot makes it."""

import asyncio
import ipaddress
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit
from urllib.robotparser import RobotFileParser

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from aiolimiter import AsyncLimiter

from .logins import origin_of, split_login

AGENT = "six-ways-link-checker"
SECONDS = 20.0  # for one request with its redirects
MAX_BODY = 5_000_000  # bytes of a page that are read
MAX_REDIRECTS = 10
MAX_ROBOTS_REDIRECTS = 5  # RFC 9309, 2.3.1.2
REDIRECTS = {301, 302, 303, 307, 308}
MAX_WAIT = 120.0  # seconds: a longer Retry-After is not waited for
NO_HEAD = {400, 403, 404, 405, 501}  # the answers of servers that do not support HEAD


class Skipped(Exception):
    """The URL is not fetched: robots.txt forbids it, or it leads into a private network."""


class TryLater(Exception):
    """The error may pass: a timeout, a broken connection, 429 or 5xx. `seconds` is the server's Retry-After."""

    def __init__(self, reason: str, status: int | None = None, seconds: float | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.seconds = seconds


class Answer(NamedTuple):
    url: str
    """The last one, after redirects."""
    status: int
    reason: str
    milliseconds: int
    charset: str | None
    body: bytes | None
    """None unless it was asked for and is HTML."""


class PublicResolver(AbstractResolver):
    """Refuses names that resolve to a private network. It checks the addresses to which it then connects."""

    def __init__(self) -> None:
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if not all(is_public(one["host"]) for one in found):
            raise Skipped(f"{host} is in a private network")
        return found

    async def close(self) -> None:
        await self._resolver.close()


def is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or ip
    return ip.is_global and not ip.is_multicast


class Fetcher:
    """Requests of one process: at most `per_second` to each host, and only what robots.txt allows."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        per_second: float,
        *,
        private: bool = False,
        logins: Mapping[str, str | None] | None = None,
    ) -> None:
        """`logins`: for each origin, such as `https://example.com`, the `Authorization` header of its requests."""
        self._logins = logins or {}
        self._session = session
        self._per_second = per_second
        self._private = private
        self._limits: dict[str, AsyncLimiter] = {}
        self._robots: dict[str, asyncio.Task[RobotFileParser]] = {}

    async def fetch(self, url: str, *, read: bool) -> Answer:
        """HEAD, and GET where a server does not answer that; with `read` GET, and the body if it is HTML.

        Raises Skipped and TryLater. Every other answer is final, 404 as well as 200.
        """
        started = time.monotonic()
        try:
            async with asyncio.timeout(SECONDS):
                for method in ("GET",) if read else ("HEAD", "GET"):
                    answer = await self._follow(method, url, read=read)
                    if method == "GET" or answer.status not in NO_HEAD:
                        break
        except TimeoutError:
            raise TryLater(f"no answer within {SECONDS:g} s") from None
        except aiohttp.InvalidURL as error:
            return Answer(url, 0, f"not a valid URL: {error}", 0, None, None)
        except aiohttp.TooManyRedirects:
            return Answer(url, 0, f"more than {MAX_REDIRECTS} redirects", 0, None, None)
        except (aiohttp.ClientError, OSError) as error:
            raise TryLater(f"{type(error).__name__}: {error}"[:200]) from None
        return answer._replace(milliseconds=round((time.monotonic() - started) * 1000))

    async def _follow(self, method: str, url: str, *, read: bool) -> Answer:
        """Follow redirects one by one, because each may lead to another host."""
        for _ in range(MAX_REDIRECTS + 1):
            await self._check(url)
            async with self._request(method, url) as response:
                location = response.headers.get("Location")
                if response.status in REDIRECTS and location:
                    url, _ = split_login(urljoin(str(response.url), location))
                    continue
                if response.status == 429 or response.status >= 500:
                    seconds = retry_after(response.headers.get("Retry-After"))
                    raise TryLater(f"{response.status} {response.reason}", response.status, seconds)
                wanted = read and response.content_type in ("text/html", "application/xhtml+xml")
                body = await _read(response) if wanted else None
                return Answer(url, response.status, response.reason or "", 0, response.charset, body)
        raise aiohttp.TooManyRedirects(None, ())  # type: ignore[arg-type]

    def _refuse_private(self, url: str) -> None:
        """Names are checked when they are resolved; an address in the URL is never resolved."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            raise Skipped(f"leads to {parts.scheme or 'a URL without a scheme'}")
        if not self._private and _is_address(parts.hostname or "") and not is_public(parts.hostname or ""):
            raise Skipped(f"{parts.hostname} is in a private network")

    async def _check(self, url: str) -> None:
        self._refuse_private(url)
        robots = await self._rules(origin_of(url))
        if not robots.can_fetch(AGENT, url):
            raise Skipped("robots.txt forbids it")

    async def _rules(self, origin: str) -> RobotFileParser:
        """robots.txt of a host, asked for once (RFC 9309: 4xx allows everything, an unreachable one nothing yet)."""
        if origin not in self._robots:
            self._robots[origin] = asyncio.create_task(self._read_rules(origin))
        try:
            return await asyncio.shield(self._robots[origin])
        except Exception:
            self._robots.pop(origin, None)  # ask again at the next attempt
            raise

    async def _read_rules(self, origin: str) -> RobotFileParser:
        rules, url, text = RobotFileParser(), f"{origin}/robots.txt", ""
        for _ in range(MAX_ROBOTS_REDIRECTS):
            self._refuse_private(url)
            async with self._request("GET", url) as response:
                if response.status >= 500:
                    raise TryLater(f"robots.txt: {response.status}", response.status)
                if response.status == 200:
                    text = (await _read(response)).decode("utf-8", "replace")
                if response.status not in REDIRECTS or "Location" not in response.headers:
                    break
                url, _ = split_login(urljoin(str(response.url), response.headers["Location"]))
        rules.parse(text.splitlines())
        return rules

    @asynccontextmanager
    async def _request(self, method: str, url: str) -> AsyncIterator[aiohttp.ClientResponse]:
        host = urlsplit(url).netloc
        async with self._limits.setdefault(host, AsyncLimiter(1, 1 / self._per_second)):
            pass
        login = self._logins.get(origin_of(url))
        headers = {"Authorization": login} if login else {}
        async with self._session.request(method, url, allow_redirects=False, headers=headers) as response:
            yield response


def new_session(*, private: bool = False) -> aiohttp.ClientSession:
    """Without cookies and without proxies of the environment."""
    resolver: Any = None if private else PublicResolver()
    connector = aiohttp.TCPConnector(resolver=resolver, limit_per_host=4)
    headers = {"User-Agent": AGENT, "Accept": "text/html,*/*;q=0.5"}
    return aiohttp.ClientSession(connector=connector, headers=headers, cookie_jar=aiohttp.DummyCookieJar())


def retry_after(value: str | None) -> float | None:
    """The seconds of a Retry-After header (RFC 9110, 10.2.3: a number or a date); None if it has none."""
    if value is None:
        return None
    try:
        seconds = float(value) if value.strip().isdigit() else parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError):
        return None
    return min(max(seconds, 0.0), MAX_WAIT)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        body += chunk
        if len(body) > MAX_BODY:
            break
    return bytes(body[:MAX_BODY])


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
