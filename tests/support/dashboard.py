"""The dashboard of strategy 5 in this process, as a browser without scripts uses it."""

import json
import re
from dataclasses import dataclass
from html import unescape
from typing import Any
from urllib.parse import quote

from aiohttp import ClientSession, web
from aiohttp.client import ClientResponse
from pydantic import SecretStr
from redis import Redis

from asynckit.web.page_token import page_token
from common.http import serving
from common.processes.chapter import chapter_module
from common.settings import Settings
from resque import keys as keys_module

server = chapter_module("5_remote_queue.server")

KEYS = keys_module.Keys()

XSS = "<img src=x onerror=alert(1)>"

JOB = '{"class":"sendEmail","queue":"q","args":[{"to":"a@example.com"}]}'

PAGES = [
    "",
    "/queues",
    "/queue?name=q",
    f"/queue?name={quote(XSS)}",
    "/delayed",
    "/failed",
    "/failed?before=9",
    "/workers",
]

ACTIONS = [
    "queues/pause", "queues/resume", "delayed/run", "delayed/remove",
    "failed/retry", "failed/remove", "failed/retry-all", "failed/remove-all",
]  # fmt: skip


@dataclass
class Site:
    """The server in this process, and a client of its Redis."""

    url: str
    http: ClientSession
    redis_url: str
    redis: Any
    """A client with which the tests prepare and check the keys."""

    async def get(self, path: str = "", status: int = 200) -> str:
        async with self.http.get(f"{self.url}/resque{path}") as response:
            text = await response.text()
            assert response.status == status, text
            return text

    async def post(self, action: str, **form: str | int) -> ClientResponse:
        """Press a button without following the redirect."""
        form = {"token": page_token("/resque"), **form}
        return await self.http.post(f"{self.url}/resque/{action}", data=form, allow_redirects=False)

    async def press(self, action: str, **form: str | int) -> str:
        """Press a button and return the page after the redirect."""
        response = await self.post(action, **form)
        assert response.status == 303, await response.text()
        return await self.get(response.headers["Location"].removeprefix("/resque"))

    async def form(self, page: str, action: str, number: int = 0) -> dict[str, str]:
        """The fields of the form that posts to this action."""
        forms = re.findall(rf'<form method="post" action="/resque/{action}".*?</form>', await self.get(page), re.DOTALL)
        fields = re.findall(r'<input type="hidden" name="(\w+)" value="(.*?)">', forms[number])
        return {name: unescape(value) for name, value in fields}

    def list(self, key: str) -> list[bytes]:
        found: list[bytes] = self.redis.lrange(key, 0, -1)
        return found

    def dump(self) -> dict[bytes, bytes]:
        """All keys and values in Redis."""
        return {key: self.redis.dump(key) for key in self.redis.scan_iter(count=1000)}


class site_of:  # noqa: N801  reads as a function
    """Start a server for this Redis."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def __aenter__(self) -> Site:
        settings = Settings(redis_url=SecretStr(self._url), host="127.0.0.1")
        self._runner: web.AppRunner = await serving.start(server.create_app(settings), "127.0.0.1", 0)
        self._http = ClientSession()
        self._redis = Redis.from_url(self._url, protocol=2)
        url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return Site(url, self._http, self._url, self._redis)

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()
        self._redis.close()
        await self._runner.cleanup()


def failure(**more: object) -> str:
    members = {
        "failed_at": "2026/11/21 07:39:33 UTC",
        "payload": json.loads(JOB),
        "exception": "Refused",
        "error": "550 no such user",
        "backtrace": ["mailer.py:7"],
        "worker": "host:7:q",
        "queue": "q",
    }
    return json.dumps(members | more)
