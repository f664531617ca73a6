"""Every background task of the event log survives every error of Redis, at every call."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest

from asynckit.heartbeat import Heartbeat
from asynckit.redis_client import blocking_redis_client, redis_client
from asynckit.tasks import end_tasks, keep_running
from eventlog import consumers, counts, hints, outcomes, parked, partitions, reader, registration, streams
from eventlog.errors import LOG_CALL_ERRORS
from eventlog.events import Event
from eventlog.handlers import ErrorKind
from eventlog.syndication import SUBSCRIPTIONS, Syndication
from tests.support.failing_calls import failing_calls
from tests.support.programs import a_name, until
from tests.support.servers import Valkey

LOGS: dict[str, Callable[[Any], Any]] = {
    "lua": lambda redis: partitions.PartitionedLog(redis, 3.0, partition_events=3),
    "streams": lambda redis: streams.StreamLog(redis, 3.0),
}
FUNCTIONS = {
    "eventlog/leases.py": {"commit_many", "put_back", "park", "extend"},
    "eventlog/delays.py": {"add", "of", "remove"},
    "eventlog/parked.py": {"put", "claim"},
    "eventlog/registration.py": {"add", "remove"},
    "eventlog/counts.py": {"write"},
    "eventlog/syndication.py": {"subscriptions"},
}
MORE = {
    "lua": {
        "eventlog/reader.py": {"_run_claim", "_read_cursor", "_advance"},
        "eventlog/hints.py": {"_listen"},
        "eventlog/appender.py": {"_append_to", "_follow"},
    },
    "streams": {"eventlog/streams.py": {"_claim", "_wait_for_new", "_append_many"}},
}

RARE = (
    "leave",
    "clear",
    "open_first",
    "_find",
    "_find_the_way",
    "replay",
)  # called only by some of the calls that are repeated


class Queue:
    """The queue of an application."""

    def __init__(self) -> None:
        self.jobs: set[Any] = set()

    async def enqueue(self, queue: str, name: str, args: Sequence[Any] = (), job_id: str | None = None) -> bool:
        self.jobs.add(args[0]["data"]["number"])
        return True


class Temporary(Exception):
    pass


class Permanent(Exception):
    pass


class Listener:
    """Fails as the event says."""

    name = "listener"
    events: frozenset[str] | None = None
    window = 10

    def __init__(self) -> None:
        self.tried: set[int] = set()
        self.done: set[int] = set()

    async def handle(self, event: Event) -> None:
        number = event.data["number"]
        if event.name == "permanent":
            raise Permanent
        if event.name == "temporary" and number not in self.tried:
            self.tried.add(number)
            raise Temporary
        await asyncio.sleep(0.01)
        self.done.add(number)


class BatchListener(Listener):
    name = "batch"
    gather_seconds = 0.0

    async def handle_many(self, events: Sequence[Event]) -> None:
        for event in events:
            await self.handle(event)


class Feed:
    def __init__(self, log: Any, valkey: Valkey) -> None:
        self.log = log
        self.number = 0
        self._client: Any = valkey.client

    async def __call__(self) -> None:
        """One of everything, and an application subscribes or ends its subscription."""
        for name in ("ok", "temporary", "permanent"):
            self.number += 1
            event = Event(f"<{a_name()}@x>", name, {"number": self.number})
            await until(lambda event=event: self._append(event), "the event is in the log")  # type: ignore[misc]
        if self.number % 2:
            self.subscribe()
        else:
            self._client.delete(SUBSCRIPTIONS)

    async def _append(self, event: Event) -> bool:
        with suppress(*LOG_CALL_ERRORS):
            return bool(await self.log.append(event))
        return False

    def subscribe(self) -> None:
        entry = '{"event":"ok","queue":"q","class":"job","since":"0-0"}'
        self._client.hset(SUBSCRIPTIONS, "application ok", entry)


def expected(kind: str) -> set[str]:
    return {f"{file} {name}" for file, names in (FUNCTIONS | MORE[kind]).items() for name in names}


def error_kind(error: Exception) -> ErrorKind:
    kinds = {Permanent: ErrorKind.PERMANENT, Temporary: ErrorKind.TEMPORARY}
    return kinds.get(type(error), ErrorKind.BUG)


def quicken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(consumers, "RECONNECT_CAP_SECONDS", 0.05)
    monkeypatch.setattr(outcomes, "RECONNECT_CAP_SECONDS", 0.05)
    monkeypatch.setattr(registration, "REGISTER_SECONDS", 0.05)
    monkeypatch.setattr(parked, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(reader, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(counts, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(hints, "SUBSCRIBE_AGAIN_SECONDS", 0.05)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", LOGS)
async def test_every_task_survives_every_error_at_every_call(
    kind: str, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    valkey.client.flushall()
    quicken(monkeypatch)
    queue, listener, batch = Queue(), Listener(), BatchListener()
    with failing_calls(monkeypatch, "extend") as calls:
        async with AsyncExitStack() as stack:
            redis = await stack.enter_async_context(redis_client(valkey.url))
            log: Any = await stack.enter_async_context(LOGS[kind](redis))
            client = blocking_redis_client(valkey.url)
            stack.callback(client.close)
            handlers: list[Any] = [listener, batch, Syndication(redis, queue)]
            running = [consumers.Consumer(log, one, 5, lambda _: 0.0, error_kind) for one in handlers]
            tasks = [keep_running(one.run, one.name) for one in running]

            def beat() -> None:
                log.extend(client, [held for one in running for held in one.held()])

            await stack.enter_async_context(Heartbeat(beat, 0.1))
            feed = Feed(log, valkey)
            calls.armed = True

            async def all_have_failed() -> bool:
                await feed()
                await asyncio.sleep(0.05)
                return calls.functions() >= expected(kind) and not calls.left(*RARE)

            await until(all_have_failed, "each error has been raised at each call", 120)
            calls.armed = False
            feed.subscribe()
            before = feed.number
            await feed()
            feed.subscribe()
            await until(lambda: {before + 1, before + 2} <= listener.done & batch.done, "both handle new events")
            await until(lambda: before + 1 in queue.jobs, "and an application gets its job")
            for one in running:
                one.stop()
            log.stop_waiting()
            await asyncio.wait(tasks)
            await asyncio.gather(*[one.drain(5.0) for one in running])
            await end_tasks(tasks)
