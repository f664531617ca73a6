"""Your file: the job of a dead-link checker. One job checks one URL.

links:status   hash   URL -> the status of the answer; 0 if there was none
"""

from html.parser import HTMLParser
from typing import Any
from urllib.parse import urldefrag, urljoin, urlsplit  # noqa: F401  you may need them

from aiohttp import ClientError, ClientSession

from resque import Queue

QUEUE, JOB, STATUS = "links", "check", "links:status"


class Checker:
    def __init__(self, redis: Any, queue: Queue, session: ClientSession, host: str) -> None:
        self._redis = redis
        self._queue = queue
        self._session = session
        self._host = host  # "127.0.0.1:8000": only pages of this host are read

    async def enqueue(self, url: str) -> None:
        """Enqueue a job for this URL."""
        await self._queue.enqueue(QUEUE, JOB, [{"url": url}])

    async def check(self, arguments: dict[str, str]) -> None:
        """The job: fetch the URL, store the status, and follow the links of the page."""
        url = arguments["url"]
        async with self._session.get(url) as response:
            await self._redis.hset(STATUS, url, response.status)
            for href in hrefs(await response.text()):
                await self.check({"url": href})


class Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hrefs += [value for name, value in attrs if tag == "a" and name == "href" and value]


def hrefs(page: str) -> list[str]:
    """The targets of all links of a page, as they are written there."""
    anchors = Anchors()
    anchors.feed(page)
    return anchors.hrefs


NO_ANSWER = (ClientError, OSError, TimeoutError)
"""What `get` raises if there is no answer."""
