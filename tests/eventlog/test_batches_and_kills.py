"""A consumer: failing batches, and processes that are killed."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from redis.exceptions import TimeoutError as RedisTimeoutError

from asynckit.redis_client import redis_client
from common.mail.errors import Unavailable
from eventlog import consumers, early, leases, partitions, streams, suspects
from tests.support.listeners import (
    BatchListener,
    Listener,
    Permanent,
    all_done,
    append,
    consuming,
)
from tests.support.programs import LIMIT, until
from tests.support.servers import Valkey

ENGINES = ["lua"]


async def test_failing_events_of_a_batch_are_found_in_few_batches(log: Any, valkey: Valkey) -> None:
    def act(number: int) -> None:
        if number % 100 == 50:
            raise Permanent("no such mailbox")

    handler = BatchListener(act)
    handler.window = 500
    batches: list[int] = []
    handle_many = handler.handle_many

    async def count(events: Sequence[Any]) -> None:
        batches.append(len(events))
        await handle_many(events)

    handler.handle_many = count  # type: ignore[method-assign]
    await asyncio.gather(*[append(log, number) for number in range(500)])
    connections = valkey.client.info("stats")["total_connections_received"]
    async with consuming(log, handler):
        await all_done(log, 495, parked=5)
    assert set(handler.ended) == {number for number in range(500) if number % 100 != 50}
    assert len(batches) < 2 * 5 * 9
    assert valkey.client.info("stats")["total_connections_received"] - connections < 10


async def test_a_batch_of_failing_events_uses_few_connections(log: Any, valkey: Valkey) -> None:
    def act(number: int) -> None:
        raise Unavailable("not now")

    handler = BatchListener(act)
    handler.window = 200
    await asyncio.gather(*[append(log, number) for number in range(200)])
    connections = valkey.client.info("stats")["total_connections_received"]
    async with consuming(log, handler, attempts=1):
        await all_done(log, 0, parked=200)
    assert {parked.reason for parked in await log.parked("listener")} == {"Unavailable: not now"}
    assert valkey.client.info("stats")["total_connections_received"] - connections < 10


async def killed(log: Any, expected: int) -> None:
    """A worker claims all events and dies."""
    async with partitions.PartitionedLog(log._redis, 0.3) as other:
        claimed: list[Any] = []
        while len(claimed) < expected:
            claimed += await other.claim("listener", 10, wait=5.0)
    assert len(claimed) == expected


async def test_an_event_whose_workers_died_as_often_as_the_limit_is_parked(log: Any) -> None:
    handler = Listener()
    await append(log, 0)
    for _ in range(suspects.CRASH_LIMIT):
        await killed(log, 1)
    async with consuming(log, handler, attempts=31):
        await all_done(log, 0, parked=1)
    [parked] = await log.parked("listener")
    assert parked.reason == "claimed 5 times and never finished: it may kill its worker"
    assert handler.began == []


async def test_kills_park_only_an_event_that_was_handled_alone_for_any_attempts(log: Any) -> None:
    handler = Listener()
    await append(log, *range(5))
    await killed(log, 5)
    await killed(log, 5)
    await killed(log, 1)
    async with consuming(log, handler, attempts=1):
        await all_done(log, 4, parked=1)
    [parked] = await log.parked("listener")
    assert parked.reason == "claimed 3 times and never finished: it may kill its worker"
    assert len(handler.ended) == 4


@pytest.mark.parametrize("kind", [Listener, BatchListener])
async def test_an_isolated_event_starts_when_the_others_have_ended(log: Any, kind: type[Listener]) -> None:
    release = asyncio.Event()
    handler = kind(lambda number: release.wait() if number else None)
    await append(log, 0)
    await killed(log, 1)
    await killed(log, 1)
    await append(log, 1, 2)
    async with partitions.PartitionedLog(log._redis, 60.0) as patient:
        async with consuming(patient, handler) as consumer:
            await until(lambda: any(one.alone for one in consumer.held()))
            assert 0 not in handler.began
            await append(log, 3)
            release.set()
            await all_done(log, 4)
        assert handler.ended == [1, 2, 0, 3]


async def test_an_event_that_was_taken_over_is_not_logged_as_retried_or_given_up(
    log: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(*_: Any, **__: Any) -> bool:
        return False

    def act(number: int) -> None:
        raise Permanent("no such mailbox") if number else Unavailable("not now")

    monkeypatch.setattr(log, "put_back", refuse)
    monkeypatch.setattr(log, "park", refuse)
    await append(log, 0, 1)
    consumer = consumers.Consumer(log, Listener(act), 3)
    consumer._begin(await log.claim("listener", 10))
    await consumer.drain(5.0)
    assert caplog.text.count("has taken over") == 2
    assert " again in " not in caplog.text
    assert ("gave up" in caplog.text, consumer.failed) == (False, 0)


async def test_while_redis_hangs_giving_back_stops_after_the_first_error(
    log: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    async def hang(*_: Any, **__: Any) -> bool:
        asked.append(1)
        raise RedisTimeoutError

    monkeypatch.setattr(log, "put_back", hang)
    await append(log, *range(5))
    consumer = consumers.Consumer(log, Listener(lambda _: asyncio.sleep(60)), 3)
    consumer._begin(await log.claim("listener", 10))
    await consumer.drain(0.01)
    assert len(asked) == 1
    assert "could not give back 5 unfinished events: Redis does not answer in time" in caplog.text


@pytest.mark.parametrize("kind", ["lua", "streams"])
async def test_a_delay_longer_than_a_pause_of_the_log_holds_for_every_worker(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Workers that did not see the event fail claim it too early and put it back. Other events are handled."""
    monkeypatch.setattr(leases, "LONGEST_PAUSE", 0.1)
    monkeypatch.setattr(early, "LONGEST_PAUSE", 0.1)
    valkey.client.flushall()
    tried: list[float] = []

    def act(number: int) -> None:
        if number == 0:
            tried.append(time.monotonic())
            if len(tried) < 2:
                raise Unavailable("451 later")

    def a_log(redis: Any) -> Any:
        return partitions.PartitionedLog(redis, 0.5) if kind == "lua" else streams.StreamLog(redis, 0.5)

    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(redis_client(valkey.url))
        logs = [await stack.enter_async_context(a_log(redis)) for _ in range(3)]
        for log in logs:
            consumer = consumers.Consumer(log, Listener(act), 3, lambda _: 2.0)
            running = asyncio.create_task(consumer.run())
            stack.push_async_callback(asyncio.wait_for, running, LIMIT)
            stack.callback(log.stop_waiting)
            stack.callback(consumer.stop)
        await append(logs[0], 0)
        async with asyncio.timeout(LIMIT):
            while (seconds := await logs[0].next_attempt("listener")) is None:  # noqa: ASYNC110  Redis does not notify the test
                await asyncio.sleep(0.01)
        assert 0.0 < seconds <= 2.0
        await append(logs[0], *range(1, 20))
        await all_done(logs[0], 20)
        assert len(tried) == 2
        assert tried[1] - tried[0] > 1.9, "not before the delay has passed"
        assert await logs[0].next_attempt("listener") is None
        lag = await logs[0].lag("listener")
        assert lag.retried == 1, "early claims are not counted as attempts"


async def test_failures_are_not_counted_as_crashes(log: Any) -> None:
    """An event may fail more often than CRASH_LIMIT."""
    tried: list[int] = []

    def act(number: int) -> None:
        tried.append(number)
        if len(tried) < 9:
            raise Unavailable("451 later")

    await append(log, 0)
    consumer = consumers.Consumer(log, Listener(act), 31, lambda _: 0.01)
    running = asyncio.create_task(consumer.run())
    await all_done(log, 1)
    consumer.stop()
    log.stop_waiting()
    await asyncio.wait_for(running, LIMIT)
    assert len(tried) == 9


@pytest.mark.parametrize("kind", ["lua", "streams"])
async def test_a_replay_forgets_delays(valkey: Valkey, kind: str) -> None:
    valkey.client.flushall()
    tried: list[int] = []

    def act(number: int) -> None:
        tried.append(number)
        if len(tried) == 1:
            raise Unavailable("451 later")

    async with redis_client(valkey.url) as redis:
        a_log = partitions.PartitionedLog(redis, 0.5) if kind == "lua" else streams.StreamLog(redis, 0.5)
        async with a_log as log:
            await append(log, 0)
            consumer = consumers.Consumer(log, Listener(act), 3, lambda _: 3600.0)
            running = asyncio.create_task(consumer.run())
            async with asyncio.timeout(LIMIT):
                while await log.next_attempt("listener") is None:  # noqa: ASYNC110  Redis does not notify the test
                    await asyncio.sleep(0.01)
            await log.replay("listener", "beginning")
            await until(lambda: len(tried) == 2)
            consumer.stop()
            log.stop_waiting()
            await asyncio.wait_for(running, LIMIT)
            await consumer.drain(1.0)
            assert await log.next_attempt("listener") is None
