"""The frames of the page's event stream. lab/browser/__init__.py describes them.

A frame is made ten times a second, once for all viewers, and not at all without viewers. A viewer whose connection is
slow misses frames, and then gets a whole picture in place of the next one.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NoReturn

import orjson
from aiohttp import web

from lab.browser.laboratory import Laboratory
from lab.browser.lane import Lane

FRAME_SECONDS = 0.1
KEPT = 50  # frames


class Feed:
    def __init__(self, laboratory: Laboratory, experiment: Callable[[], Any]) -> None:
        """`experiment` returns the state of the experiment that runs or ran last, as JSON can hold it."""
        self._laboratory = laboratory
        self._experiment = experiment
        self._frames: deque[tuple[int, bytes]] = deque(maxlen=KEPT)
        self._number = self._viewers = 0
        self._next = asyncio.Event()

    async def run(self) -> NoReturn:
        while True:
            await asyncio.sleep(FRAME_SECONDS)
            if not self._viewers:  # the next one begins with the whole picture
                for lane in self._laboratory.lanes.values():
                    lane.books.changed.clear()
                continue
            self._number += 1
            self._frames.append((self._number, self._frame({})))
            self._next.set()
            self._next = asyncio.Event()

    async def send(self, response: web.StreamResponse) -> NoReturn:
        """Write the whole picture, and then every frame."""
        self._viewers += 1
        try:
            await self._send(response)
        finally:
            self._viewers -= 1

    async def _send(self, response: web.StreamResponse) -> NoReturn:
        sent = -1
        while True:
            if not self._frames or sent < self._frames[0][0] - 1:
                sent = self._number
                await response.write(b"data: %s\n\n" % self._frame({"whole": True}))
            if sent == self._number:
                await self._next.wait()
            for number, frame in list(self._frames):
                if number > sent:
                    await response.write(b"data: %s\n\n" % frame)
                    sent = number

    def _frame(self, more: dict[str, bool]) -> bytes:
        laboratory = self._laboratory
        lanes = [{**lane.to_dict(), "emails": emails_of(lane, whole=bool(more))} for lane in laboratory.lanes.values()]
        frame = {
            "number": self._number,
            "at": round(time.monotonic() - laboratory.begin, 3),
            "lanes": lanes,
            "dial": laboratory.dial,
            "redis": laboratory.redis_state(),
            "experiment": self._experiment(),
            **more,
        }
        return orjson.dumps(frame)


def emails_of(lane: Lane, *, whole: bool) -> list[tuple[int, str]]:
    """The emails whose state has changed since the last frame; with `whole` all that are not finished."""
    books, waiting = lane.books, lane.callers.waiting
    numbers = sorted(books.unfinished(waiting)) if whole else list(books.changed)
    if not whole:
        books.changed.clear()
    return [(number, books.state(number, waiting)) for number in numbers if number in books.ledger.emails]
