"""The worker: a consumer whose task fails is started again, and the end is in order all the same."""

import asyncio
from typing import Any

import pytest

from asynckit.redis_client import blocking_redis_client, redis_client
from common.processes.chapter import chapter_module
from common.settings import Settings
from eventlog import events, partitions
from tests.support.programs import Valkey, until

worker = chapter_module("6_event_bus.worker")


class Fallible:
    """A handler that sleeps and raises at its first look; then it holds an event until the end."""

    name = "fallible"
    events: frozenset[str] | None = None
    window = 1

    def __init__(self) -> None:
        self.looks = self.began = 0

    async def wanted(self) -> bool:
        self.looks += 1
        if self.looks == 1:
            raise LookupError("a bug")
        return True

    async def handle(self, event: Any) -> None:
        self.began += 1
        await asyncio.Event().wait()


async def test_a_consumer_that_dies_is_started_again_and_gives_back_what_it_holds(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    valkey.client.flushall()
    stop = asyncio.Event()

    async def stop_requested() -> str:
        await stop.wait()
        return "a test"

    monkeypatch.setattr(worker, "stop_requested", stop_requested)
    settings, handler = Settings(drain_seconds=0.1), Fallible()
    url = valkey.url
    with blocking_redis_client(url) as client:
        async with redis_client(url) as redis, partitions.PartitionedLog(redis, 10.0) as log, asyncio.timeout(30):
            await log.append(events.Event("<1@x>", "x", {}))
            running = asyncio.create_task(worker.Worker(settings, log, [handler]).run(client))
            await until(lambda: handler.began == 1)
            stop.set()
            await running
    assert "error in a background task: consuming as fallible" in caplog.text
    assert "fallible gave back 1 unfinished" in caplog.text
