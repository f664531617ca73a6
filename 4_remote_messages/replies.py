"""The synchronous style: the server waits for a worker's report (reports.py) on a reply channel that belongs to it.

A caller asks for it with `?wait=SECONDS` after the path. The asynchronous style needs none of this.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

from aiohttp import web
from redis.asyncio import Redis

from asynckit.cluster_client import is_on_cluster
from asynckit.redis_client import redis_client
from asynckit.web.pages import Handler
from common.http.frame import SETTINGS, answer, read_email
from common.mail.emails import BadEmail, Email
from common.mail.errors import CannotAccept, InDoubt, Refused

from .channel import CHANNEL, Subscription
from .reports import read_json
from .workers import Workers

MAX_WAIT = 60.0  # seconds

_SECONDS = re.compile(r"\d{1,2}(\.\d{1,6})?", re.ASCII)


class NotSent(Refused):
    """A worker tried once and failed. It does not try again: the waiting caller gets the error and may ask again."""


@dataclass(frozen=True, slots=True)
class Report:
    started: asyncio.Event
    end: asyncio.Future[None]  # done when the email is sent; has the error when it is not


class Replies(Subscription):
    """The server's side: it subscribes to its reply channel and wakes the request that waits for an email."""

    def __init__(self, redis: Redis) -> None:
        self._name = f"{f'{{{CHANNEL}}}' if is_on_cluster(redis) else CHANNEL}:replies:{uuid4().hex}"
        self._workers = Workers(redis)
        self._expected: dict[str, Report] = {}
        super().__init__(redis, self._name, self._received)

    async def publish_and_wait(self, email: Email, seconds: float) -> None:
        """Publish the email, and return when a worker reports that it was sent.

        Raises CannotAccept if no worker received it, NoAnswer if Redis did not answer, NotSent with the reason of the
        worker that failed, and InDoubt if no worker has reported an outcome within `seconds`.
        """
        with self._expect(email.id) as report:
            try:
                async with asyncio.timeout(seconds):
                    await self._workers.publish(email, reply_to=self._name)
                    await report.end
            except TimeoutError:
                started = report.started.is_set()
                so_far = "a worker has started but not finished" if started else "no worker has reported"
                raise InDoubt(f"{so_far} within {seconds:g} s: the email may still be sent") from None

    @contextmanager
    def _expect(self, email_id: str) -> Iterator[Report]:
        """Register for the reports on this email. Raises CannotAccept if this server could not receive them."""
        if not self.live:
            raise CannotAccept("not subscribed to the workers' replies")
        report = self._expected[email_id] = Report(asyncio.Event(), asyncio.get_running_loop().create_future())
        try:
            yield report
        finally:
            del self._expected[email_id]
            report.end.cancel()

    def _received(self, data: bytes) -> None:
        members = read_json(data)
        report = self._expected.get(str(members.get("id"))) if isinstance(members, dict) else None
        if report is None or report.end.done():  # the request has timed out, or another worker has reported already
            return
        match members:
            case {"status": "started"}:
                report.started.set()
            case {"status": "sent"}:
                report.end.set_result(None)
            case {"status": "failed", "kind": "InDoubt", "reason": reason}:
                report.end.set_exception(InDoubt(f"a worker reports: {reason}"))
            case {"status": "failed", "kind": kind, "reason": reason}:
                report.end.set_exception(NotSent(f"a worker reports: {kind}: {reason}"))


REPLIES = web.AppKey("replies", Replies)


def or_wait(handle: Handler) -> Handler:
    """A handler that calls `handle_and_wait` for a request with `?wait`, and `handle` for all others."""

    async def choose(request: web.Request) -> web.StreamResponse:
        waits = "?" in request.raw_path and "wait" in request.query
        return await (handle_and_wait if waits else handle)(request)

    return choose


async def handle_and_wait(request: web.Request) -> web.Response:
    email = read_email(request)
    await request.app[REPLIES].publish_and_wait(email, wait_seconds(request))
    return answer(email, "sent")


async def open_replies(app: web.Application) -> AsyncIterator[None]:
    async with redis_client(app[SETTINGS].redis, key=CHANNEL) as redis, Replies(redis) as app[REPLIES]:
        yield


def wait_seconds(request: web.Request) -> float:
    """The number in `?wait=SECONDS`. Raises BadEmail unless it is above 0 and at most 60."""
    text = request.query["wait"]
    if not _SECONDS.fullmatch(text) or not 0 < float(text) <= MAX_WAIT:
        raise BadEmail("wait", f"not a number of seconds above 0 and at most {MAX_WAIT:g}")
    return float(text)
