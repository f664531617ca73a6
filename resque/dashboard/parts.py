"""What pages and actions share: the objects that read and change the queue, and the rendering of a page."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from aiohttp import web
from redis.asyncio import Redis

from asynckit.web.page_token import page_token
from asynckit.web.pages import html_page

from .. import show
from ..delayed import DelayedJobs
from ..failed import FailedList
from ..keys import Keys
from ..observe import Observer
from ..queue import Queue
from ..queues import Queues

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Parts:
    keys: Keys
    queue: Queue
    observer: Observer
    queues: Queues
    delayed: DelayedJobs
    failed: FailedList

    @classmethod
    def of(cls, redis: Redis, namespace: str) -> Self:
        queue = Queue(redis, namespace)
        return cls(
            queue.keys,
            queue,
            Observer(redis, queue.keys),
            Queues(redis, queue.keys, queue.scripts),
            DelayedJobs(queue),
            FailedList(redis, queue.keys, queue.scripts),
        )


PARTS = web.AppKey("parts", Parts)
PATH = web.AppKey("path", str)
"""Where the dashboard is mounted, such as "/resque"."""


def page(request: web.Request, template: str, **values: object) -> web.Response:
    path = request.app[PATH]
    return html_page(template, FOLDER / "templates", path_to=path, token=page_token(path), show=show, **values)


def number(text: str | None, otherwise: int) -> int:
    """A whole number from a query or a form; `otherwise` if it is missing, not a number or too large."""
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,15}", text) else otherwise
