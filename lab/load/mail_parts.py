"""`python -m lab.load.mail_parts STRATEGY PARTS COUNT`: the worker of strategy 3, 5 or 6 with its first PARTS parts.

Sends COUNT emails to the server of SMTP_URL. Each part is added to those before it, so the CPU time of an email differs
by the time of the part. The last part of 5 and 6 needs the Redis of REDIS_URL. Prints JSON: µs of CPU for an email.
"""

import argparse
import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from itertools import count
from typing import Any

import orjson

import resque
from asynckit.ids import new_id
from asynckit.redis_client import redis_client
from common.mail.emails import Email, email_from_json, email_from_members
from common.mail.mailer import Mailer
from common.mail.sender import WINDOW, PatientSender
from common.processes.process import run
from common.settings import Settings, read_settings
from eventlog.consumers import Consumer
from eventlog.events import Claimed, Event
from eventlog.partitions import PartitionedLog
from lab.load.http import TEXT
from resque import wire
from resque.claims import Claim, Slot
from resque.event_log import LogEvents
from resque.executor import Executor

PARTS = {
    3: ("mailer", "log line", "reading the email"),
    5: ("mailer", "log line", "reading the email", "running the job", "claim and acknowledge"),
    6: ("mailer", "log line", "reading the email", "handling the event", "claim and commit"),
}
WARM_UP = 500

Members = dict[str, str]
Send = Callable[[Email], Awaitable[None]]

log = logging.getLogger(__name__)


class Load:
    """The emails, each to a different recipient, and how many of them were sent."""

    def __init__(self, settings: Settings, send: Send, total: int) -> None:
        self.domain = settings.id_domain
        self.all_sent = asyncio.Event()
        self._send = send
        self._left = total
        self._numbers = count()

    def members(self) -> Members:
        to = f"reader{next(self._numbers)}@example.com"
        return {"to": to, "subject": "Hello", "text": TEXT, "id": new_id(self.domain)}

    async def send(self, email: Email) -> None:
        await self._send(email)
        self._left -= 1
        if self._left == 0:
            self.all_sent.set()

    async def in_turns(self, total: int, one: Callable[[], Awaitable[None]]) -> None:
        """Call `one` for each email, from as many tasks as a worker has emails in flight."""
        numbers = iter(range(total))

        async def call() -> None:
            for _ in numbers:
                await asyncio.create_task(one())  # type: ignore[arg-type]

        await asyncio.gather(*[call() for _ in range(WINDOW)])


def elements(load: Load) -> Iterator[bytes]:
    """Entries of the log."""
    while True:
        members = load.members()
        event = Event(members.pop("id"), "email_requested", members)
        yield b"%d %s" % (time.time() * 1000, event.to_json())


class EmailHandler:
    name = "email"
    events: frozenset[str] | None = None
    window = WINDOW

    def __init__(self, load: Load) -> None:
        self._load = load

    async def handle(self, event: Event) -> None:
        await self._load.send(email_from_members({**event.data, "id": event.id}, self._load.domain))


class StubLog:
    """Hands out events from memory."""

    def __init__(self, load: Load, total: int) -> None:
        self._elements, self._numbers = elements(load), iter(range(total))

    async def claim(self, consumer: str, limit: int, wait: float) -> list[Claimed]:
        await asyncio.sleep(0)
        until = time.monotonic() + 60
        some = [next(self._numbers, None) for _ in range(limit)]
        return [Claimed(consumer, f"0-{n}", 1, next(self._elements), until) for n in some if n is not None]

    async def commit_many(self, claimed: Sequence[Claimed]) -> list[bool]:
        return [True] * len(claimed)

    async def delays(self, consumer: str, claimed: Sequence[Claimed]) -> dict[str, Any]:
        return {}

    async def forget_delays(self, claimed: Sequence[Claimed]) -> None:
        return

    def count_unwanted(self, consumer: str, number: int) -> None:
        return


class StubClaims:
    async def acknowledge(self, claim: Claim) -> bool:
        return True


async def mailer_only(load: Load, total: int, number: int, *, read: bool) -> None:
    async def one() -> None:
        members = load.members()
        if not read:
            email = Email(members["id"], members["to"], members["subject"], members["text"])
        elif number == 3:
            email = email_from_json(orjson.dumps(members), load.domain)
        elif number == 5:
            email = email_from_members(members, load.domain)
        else:
            event = Claimed("email", "0-0", 1, next(entries), 0.0).event()
            email = email_from_members({**event.data, "id": event.id}, load.domain)
        await load.send(email)

    entries = elements(load)
    await load.in_turns(total, one)


def definition(load: Load) -> resque.Definition:
    async def perform(arguments: object) -> None:
        await load.send(email_from_members(arguments, load.domain))

    return resque.Definition(perform)


async def _outage(what: str, error: Exception, failures: int) -> None:
    raise error


async def jobs_from_memory(load: Load, total: int) -> None:
    executor = Executor(StubClaims(), {"sendEmail": definition(load)}, LogEvents(log), _outage)  # type: ignore[arg-type]
    slot = Slot(1, "name", "id")

    async def one() -> None:
        job = wire.make_job("emailQueue", "sendEmail", [load.members()])
        await executor.perform(Claim(slot, "token", job.queue, job.raw, job, "", "", 0, 0, 0.0))

    await load.in_turns(total, one)


async def jobs(load: Load, total: int, settings: Settings, measure: Callable[[], None]) -> None:
    async def stop() -> str:
        await load.all_sent.wait()
        return "all sent"

    async with resque.open_connections(settings.redis) as connections:
        queue = resque.Queue(connections.commands)
        await asyncio.gather(*[queue.enqueue("emailQueue", "sendEmail", [load.members()]) for _ in range(total)])
        scaling = resque.Scaling(WINDOW, WINDOW)
        definitions = {"sendEmail": definition(load)}
        worker = resque.Worker(connections, ["emailQueue"], definitions, scaling=scaling, hook=LogEvents(log))
        measure()
        await worker.run(stop)


async def events_from_memory(load: Load, total: int) -> None:
    await _consume(StubLog(load, total), load)


async def events(load: Load, total: int, settings: Settings, measure: Callable[[], None]) -> None:
    async with redis_client(settings.redis) as redis, PartitionedLog(redis, lease_seconds=60.0) as events:
        members = (load.members() for _ in range(total))
        await asyncio.gather(
            *[events.append(Event(one.pop("id"), "email_requested", dict(one)), new=True) for one in members]
        )
        measure()
        await _consume(events, load)


async def _consume(events: Any, load: Load) -> None:
    consumer = Consumer(events, EmailHandler(load), attempts=5)
    running = asyncio.create_task(consumer.run())
    await load.all_sent.wait()
    consumer.stop()
    if isinstance(events, PartitionedLog):
        events.stop_waiting()
    await running
    await consumer.drain(10.0)


async def measure_parts(number: int, parts: int, total: int, result: dict[str, float]) -> None:
    settings = read_settings()
    logging.getLogger().setLevel(logging.INFO if parts > 1 else logging.WARNING)
    started = 0.0

    def measure() -> None:
        nonlocal started
        started = time.process_time()

    async with Mailer(settings, patient=True) as mailer:
        sender = PatientSender(mailer, None)
        warm_up = Load(settings, sender.send, WARM_UP)
        await mailer_only(warm_up, WARM_UP, number, read=False)
        load = Load(settings, sender.send, total)
        from_redis = partial(jobs if number == 5 else events, load, total, settings, measure)
        from_memory = partial(jobs_from_memory if number == 5 else events_from_memory, load, total)
        measure()
        await (
            mailer_only(load, total, number, read=parts > 2)
            if parts <= 3
            else from_memory()
            if parts == 4
            else from_redis()
        )
        result["cpu_us"] = (time.process_time() - started) / total * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description="A worker with the first parts of a strategy.")
    parser.add_argument("strategy", type=int, choices=PARTS)
    parser.add_argument("parts", type=int)
    parser.add_argument("count", type=int)
    options = parser.parse_args()
    result: dict[str, float] = {}
    output = sys.stdout
    with open(os.devnull, "w") as sys.stdout:  # because run() sends the log there
        run(measure_parts(options.strategy, options.parts, options.count, result), until_stopped=False)
    print(json.dumps(result), file=output)


if __name__ == "__main__":
    main()
