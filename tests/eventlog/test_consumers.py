"""A consumer: what it does with an event whose handler is slow or fails, and with invalid entries."""

import asyncio
import logging
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import pytest
from redis.exceptions import OutOfMemoryError

from asynckit.heartbeat import Heartbeat
from asynckit.redis_client import blocking_redis_client, redis_client
from common.mail.errors import Unavailable
from eventlog import consumers, partitions
from tests.support.listeners import (
    BatchListener,
    Listener,
    Permanent,
    a_log,
    all_done,
    append,
    consuming,
    until_counted,
)
from tests.support.programs import LIMIT, until
from tests.support.servers import Valkey

ENGINES = ["lua"]


async def test_with_a_window_of_one_each_handler_ends_before_the_next_starts(log: Any) -> None:
    handler = Listener(lambda number: asyncio.sleep(0.02 if number % 2 else 0))
    handler.window = 1
    await append(log, *range(10))
    async with consuming(log, handler):
        await all_done(log, 10)
    assert handler.began == handler.ended == list(range(10))


async def test_with_a_larger_window_handlers_start_in_order(log: Any) -> None:
    async def act(number: int) -> None:
        if number % 2:
            await until(lambda: set(handler.ended) >= {0, 2, 4, 6, 8})

    handler = Listener(act)
    await append(log, *range(10))
    async with consuming(log, handler):
        await all_done(log, 10)
    assert handler.began == list(range(10))
    assert handler.ended[:5] == [0, 2, 4, 6, 8]
    assert sorted(handler.ended[5:]) == [1, 3, 5, 7, 9]


async def test_events_that_a_handler_does_not_ask_for_are_committed_at_once(log: Any) -> None:
    handler = Listener()
    handler.events = frozenset({"wanted"})
    await append(log, 1, 2)
    await append(log, 3, name="wanted")
    async with consuming(log, handler):
        await all_done(log, 3)
    assert handler.began == [3]
    await until_counted(log, handled=3, unwanted=2)


@pytest.mark.parametrize("kind", [Listener, BatchListener])
async def test_an_event_that_fails_is_retried_and_then_parked_while_others_continue(
    log: Any, kind: type[Listener]
) -> None:
    def act(number: int) -> None:
        if number == 1:
            raise Unavailable("not now")

    handler = kind(act)
    await append(log, 0, 1, 2)
    async with consuming(log, handler, attempts=2):
        await all_done(log, 2, parked=1)
    assert {0, 2} <= set(handler.ended)
    [parked] = await log.parked("listener")
    assert (parked.reason, parked.attempts) == ("Unavailable: not now", 2)


@pytest.mark.parametrize("kind", [Listener, BatchListener])
async def test_an_event_with_a_permanent_error_is_parked_at_once(
    log: Any, kind: type[Listener], valkey: Valkey
) -> None:
    def act(number: int) -> None:
        if number == 1:
            raise Permanent("no such mailbox")

    handler = kind(act)
    await append(log, 0, 1, 2)
    valkey.client.rpush(f"eventlog:partitions:{{{log._appender._open}}}", b"\x80 invalid")
    async with consuming(log, handler):
        await all_done(log, 2, parked=2)
    reasons = {parked.reason.partition(":")[0]: parked.attempts for parked in await log.parked("listener")}
    assert reasons == {"Permanent": 1, "BadEvent": 1}


async def test_a_bug_logs_a_traceback_and_the_consumer_continues(log: Any, caplog: pytest.LogCaptureFixture) -> None:
    handler = Listener(lambda number: 1 // number)
    await append(log, 0, 1)
    async with consuming(log, handler, attempts=1):
        await all_done(log, 1, parked=1)
    assert handler.ended == [1]
    assert "ZeroDivisionError" in caplog.text


async def test_a_handler_that_blocks_for_longer_than_a_lease_keeps_the_lease(valkey: Valkey) -> None:
    """The heartbeat has its own thread, because the handler blocks the event loop."""
    valkey.client.flushall()
    client, lease, extended = blocking_redis_client(valkey.url), 1.0, [0.0]

    def block(number: int) -> None:
        lease_ended, limit = time.monotonic() + lease, time.monotonic() + LIMIT
        while extended[-1] < lease_ended and time.monotonic() < limit:
            time.sleep(0.01)

    def beat() -> None:
        if (held := consumer.held()) and log.extend(client, held) == 0:  # it has lost none
            extended.append(time.monotonic())

    handler = Listener(block)
    async with a_log(valkey, lease) as log:
        await append(log, 0)
        async with consuming(log, handler) as consumer, Heartbeat(beat, 0.1):
            await all_done(log, 1)
    assert handler.began == [0]
    client.close()


async def test_an_event_whose_lease_ended_before_its_handler_started_is_not_handled(log: Any) -> None:
    handler = Listener()
    await append(log, 0)
    [claimed] = await log.claim("listener", 1)
    consumer = consumers.Consumer(log, handler, 3)
    consumer._begin([claimed._replace(until=time.monotonic() - 1)])
    await consumer.drain(1.0)
    assert (handler.began, consumer.held()) == ([], ())
    assert (await log.lag("listener")).pending == 1


async def test_events_that_are_unfinished_after_the_limit_are_given_back_at_once(log: Any, valkey: Valkey) -> None:
    handler = Listener(lambda number: asyncio.sleep(60))
    await append(log, 0, 1)
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(redis_client(valkey.url))
        other = await stack.enter_async_context(partitions.PartitionedLog(redis, 60.0))
        consumer = consumers.Consumer(log, handler, 3)
        running = asyncio.create_task(consumer.run())
        await until(lambda: handler.began == [0, 1])
        consumer.stop()
        log.stop_waiting()
        await running
        await consumer.drain(0.05)
        claimed = await other.claim("listener", 10, wait=5.0)
        assert [one.attempts for one in claimed] == [1, 1]


async def test_after_an_unexpected_error_the_consumer_claims_again(
    log: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(consumers, "CHECK_SECONDS", 0.01)
    claim, broken = log.claim, True

    async def claim_later(*arguments: Any) -> Any:
        nonlocal broken
        if broken:
            broken = False
            raise KeyError("invalid")
        return await claim(*arguments)

    monkeypatch.setattr(log, "claim", claim_later)
    handler = Listener()
    await append(log, 0)
    with caplog.at_level(logging.ERROR):
        async with consuming(log, handler):
            await all_done(log, 1)
    assert "KeyError" in caplog.text


@pytest.mark.parametrize("kind", [Listener, BatchListener])
async def test_a_full_redis_that_a_handler_needs_costs_no_attempts(
    log: Any, kind: type[Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "backoff_seconds", lambda *_, **__: 0.02)
    full, tried = True, Counter[int]()

    def act(number: int) -> None:
        tried[number] += 1
        if full:
            raise OutOfMemoryError("maxmemory")

    await asyncio.gather(*[append(log, number) for number in range(100)])
    async with consuming(log, kind(act), attempts=1):
        await until(lambda: tried.total() > 20 if kind is BatchListener else tried.total() > 100)
        assert len(tried) < 2 * 10, "it claims no more events meanwhile"
        full = False
        await all_done(log, 100)
    assert (await log.lag("listener")).retried == 0
