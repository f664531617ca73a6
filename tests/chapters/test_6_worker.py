"""The worker restarts a consumer whose task has failed, and still stops in order."""

import asyncio
from typing import Any

import pytest

from asynckit.redis_client import blocking_redis_client, redis_client
from common.processes.chapter import chapter_module
from common.settings import Settings
from eventlog import events, partitions
from tests.support.programs import LIMIT, until
from tests.support.servers import Valkey

worker = chapter_module("6_event_bus.worker")


class FailingHandler:
    """An on-demand handler whose first `needed` raises. Its `handle` never returns."""

    name = "failing"
    events: frozenset[str] | None = None
    window = 1

    def __init__(self) -> None:
        self.checks = self.started = 0

    async def needed(self) -> bool:
        self.checks += 1
        if self.checks == 1:
            raise LookupError("a bug")
        return True

    async def handle(self, event: Any) -> None:
        self.started += 1
        await asyncio.Event().wait()


async def test_a_consumer_that_fails_is_restarted_and_gives_back_its_events(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    valkey.client.flushall()
    stop = asyncio.Event()

    async def stop_requested() -> str:
        await stop.wait()
        return "a test"

    monkeypatch.setattr(worker, "stop_requested", stop_requested)
    settings, handler = Settings(drain_seconds=0.1), FailingHandler()
    url = valkey.url
    with blocking_redis_client(url) as client:
        async with redis_client(url) as redis, partitions.PartitionedLog(redis, 10.0) as log, asyncio.timeout(LIMIT):
            await log.append(events.Event("<1@x>", "x", {}))
            running = asyncio.create_task(worker.run_handlers(settings, log, [handler], client))
            await until(lambda: handler.started == 1)
            stop.set()
            await running
    assert "error in a background task: consuming as failing" in caplog.text
    assert "failing gave back 1 unfinished" in caplog.text
