"""The background tasks of strategies 4, 5 and 6 survive every error of Redis, at every call.

tests/resque and tests/eventlog have the same test for the libraries of strategies 5 and 6.
"""

import asyncio
from contextlib import suppress
from typing import Any, cast

import pytest

from asynckit.redis_client import redis_client
from asynckit.tasks import end_tasks, keep_running
from common.processes.chapter import chapter_module
from eventlog import events, partitions
from eventlog import worker as worker_module
from eventlog.errors import LOG_CALL_ERRORS
from resque import Queue, pausing
from tests.support.failing_calls import FAILURES, failing_calls
from tests.support.programs import a_name, until
from tests.support.servers import Valkey

channel = chapter_module("4_remote_messages.channel")
reports_module = chapter_module("4_remote_messages.reports")


async def test_the_subscription_and_the_reports_of_strategy_4(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "PING_SECONDS", 0.02)
    monkeypatch.setattr(channel, "PAUSE_CAP_SECONDS", 0.02)
    name, received = a_name(), list[bytes]()
    functions = {
        f"4_remote_messages/channel.py {one}" for one in ("_stay_subscribed", "_read", "_ping", "_publish_many")
    }
    with failing_calls(monkeypatch) as calls:
        calls.armed = True
        async with (
            redis_client(valkey.url) as redis,
            channel.Subscription(redis, name, received.append) as subscription,
        ):
            reports = reports_module.Reports(redis)

            async def all_have_failed() -> bool:
                valkey.publish("hello", name)
                reports.report(name, "an id", "sent")
                await asyncio.sleep(0.03)
                return calls.functions() >= functions and not calls.left()

            await until(all_have_failed, "each error has been raised at each call", 50)
            calls.armed = False
            await until(lambda: subscription.live, "it is subscribed")
            await reports.flush()
            received.clear()
            valkey.publish("hello", name)
            reports.report(name, "another id", "sent")
            await until(lambda: len(received) == 2, "both arrive")


@pytest.mark.parametrize("error", sorted({error for error, _ in FAILURES}, key=str))
async def test_strategy_4_unsubscribes_whatever_redis_answers(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    with failing_calls(monkeypatch) as calls:
        monkeypatch.setattr(calls, "failure", lambda: (error, False) if calls.armed else None)
        async with redis_client(valkey.url) as redis, channel.Subscription(redis, a_name(), print) as subscription:
            await until(lambda: subscription.live)
            calls.armed = True


async def test_the_pause_of_strategy_5(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pausing, "PAUSE_SECONDS", 0.05)
    with failing_calls(monkeypatch) as calls:
        async with redis_client(valkey.url) as redis:
            queue = Queue(redis, a_name())
            pause = pausing.KeptPause(queue, "emailQueue")

            async def is_paused() -> bool:
                return bool(await redis.exists(queue.keys.paused("emailQueue")))

            calls.armed = True
            pause.begin("LoginFailed: 535 no")
            await until(lambda: calls.calls and not calls.left(), "each error has been raised at each call", 50)
            calls.armed = False
            await until(is_paused, "the queue is paused")
            pause.end()
            await until(lambda: pause._task is None, "the task has ended")
            assert not await is_paused()
            await pause.close()


async def test_the_retention_of_strategy_6(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "RETENTION_LOOK_SECONDS", 0.01)
    with failing_calls(monkeypatch) as calls:
        async with redis_client(valkey.url) as redis, partitions.PartitionedLog(redis, 5.0, partition_events=2) as log:
            limits = {"lease_seconds": 5.0, "drain_seconds": 1.0, "retention_seconds": 0.001, "retention_bytes": 10**9}
            worker = worker_module.Worker(log, [], **cast(Any, limits))
            tasks = [keep_running(worker._keep_within_limits, "trimming the log")]

            async def append() -> bool:
                for _ in range(5):
                    with suppress(*LOG_CALL_ERRORS):
                        await log.append(events.Event(f"<{a_name()}@x>", "x", {}))
                await asyncio.sleep(0.03)
                return bool(calls.calls) and not calls.left()

            async def is_trimmed() -> bool:
                return len(await log.partitions()) <= 2

            await append()
            calls.armed = True
            await until(append, "each error has been raised at each call", 50)
            calls.armed = False
            await until(is_trimmed, "the log is trimmed")
            await end_tasks(tasks)
