"""`python -m lab.load.web_parts STRATEGY PARTS`: the web server of strategy 5 or 6 with only the first PARTS parts.

Each part is added to those before it, so the CPU time of a request differs by the time of the part. The last one needs
the Redis of REDIS_URL; before that, a stub answers in its place. Prints its port.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web

from asynckit.batcher import Batcher
from asynckit.own_connection import OwnConnection
from asynckit.redis_client import redis_client
from common.http.frame import Stats, answer, read_email, web_frame
from common.http.serving import start
from common.mail.emails import Email
from common.processes.process import run, stop_requested
from common.settings import Settings, read_settings
from eventlog.events import Event
from eventlog.partitions import PartitionedLog
from lab.load.bare_web import CONTENT_TYPE, body
from resque import Queue

PARTS = (
    "bare aiohttp handler",
    "routing and checks of the request",
    "reading the email, and its id",
    "answer",
    "group commit",
    "encoding",
    "Redis client",
)
FOLDERS = {5: "5_remote_queue", 6: "6_event_bus"}
MARKS = {5: b"sendEmail", 6: b"email_requested"}
"""What a packed call has once for each email."""

HandOver = Callable[[Email], Awaitable[object]]


def make_app(settings: Settings, number: int, parts: int, hand_over: HandOver) -> web.Application:
    ready = body(202)

    async def handle(request: web.Request) -> web.Response:
        email = read_email(request) if parts > 2 else None
        if email is not None and parts > 4:
            await hand_over(email)
        if email is not None and parts > 3:
            return answer(email, "accepted")
        return web.Response(body=ready, status=202, headers={"Content-Type": CONTENT_TYPE})

    async def stats(app: web.Application) -> Stats:
        return {}

    async def health(app: web.Application) -> None:
        return

    if parts > 1:
        return web_frame(settings, FOLDERS[number], handle, stats, health)
    app = web.Application()
    app.router.add_get("/{to}/{subject}/{text}", handle)
    return app


def hand_over_to(number: int, parts: int, redis: Any) -> HandOver:
    if parts <= 5:
        return Batcher(_commit_nothing)
    if parts == 6:
        setattr(OwnConnection, "send", _stub_of(number))  # noqa: B010  mypy allows no assignment to a method
    if number == 5:
        queue = Queue(redis)
        return lambda email: queue.enqueue("emailQueue", "sendEmail", [{**email.to_dict(), "id": email.id}], email.id)
    log = PartitionedLog(redis, lease_seconds=10.0)
    return lambda email: log.append(Event(email.id, "email_requested", email.to_dict()), new=True)


async def _commit_nothing(emails: Sequence[Email]) -> Sequence[None]:
    await asyncio.sleep(0)
    return [None] * len(emails)


def _stub_of(number: int) -> Callable[[OwnConnection, Sequence[bytes]], Awaitable[list[Any]]]:
    async def send(_: OwnConnection, commands: Sequence[bytes]) -> list[Any]:
        """Answers like Redis, without a connection."""
        await asyncio.sleep(0)
        counts = [command.count(MARKS[number]) for command in commands]
        return [[1] * count if number == 5 else [b"appended", *range(count)] for count in counts]

    return send


async def serve_parts(number: int, parts: int) -> None:
    settings = read_settings()
    async with redis_client(settings.redis) as redis:
        runner = await start(make_app(settings, number, parts, hand_over_to(number, parts, redis)), "127.0.0.1", 0)
        print(runner.addresses[0][1], flush=True)
        await stop_requested()
        await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description="A web server with the first parts of a strategy.")
    parser.add_argument("strategy", type=int, choices=FOLDERS)
    parser.add_argument("parts", type=int, choices=range(1, len(PARTS) + 1))
    options = parser.parse_args()
    run(serve_parts(options.strategy, options.parts))


if __name__ == "__main__":
    main()
