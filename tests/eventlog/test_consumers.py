"""A consumer: what it does with an event whose handler is slow or fails, and with invalid entries."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from redis.exceptions import OutOfMemoryError
from redis.exceptions import TimeoutError as RedisTimeoutError

from asynckit.heartbeat import Heartbeat
from asynckit.redis_client import blocking_redis_client, redis_client
from common.mail.errors import Unavailable
from eventlog import consumers, events, leases, partitions, streams
from eventlog.handlers import ErrorKind, default_error_kind
from tests.support.programs import LIMIT, Valkey, a_name, until


class Permanent(Exception):
    pass


class Listener:
    """A handler that remembers its events and calls `act` for each."""

    name = "listener"
    events: frozenset[str] | None = None
    window = 10

    def __init__(self, act: Callable[[int], object] = lambda _: None) -> None:
        self.began: list[int] = []
        self.ended: list[int] = []
        self._act = act

    async def handle(self, event: Any) -> None:
        number = event.data["number"]
        self.began.append(number)
        result = self._act(number)
        if asyncio.iscoroutine(result):
            await result
        self.ended.append(number)


class BatchListener(Listener):
    """The same for batches."""

    gather_seconds = 0.0

    async def handle_many(self, events: Sequence[Any]) -> None:
        for event in events:
            await self.handle(event)


@pytest.fixture
async def log(valkey: Valkey) -> AsyncIterator[Any]:
    valkey.client.flushall()
    async with a_log(valkey, 10.0) as log:
        yield log


@asynccontextmanager
async def a_log(valkey: Valkey, lease_seconds: float) -> AsyncIterator[Any]:
    async with redis_client(valkey.url) as redis, partitions.PartitionedLog(redis, lease_seconds) as log:
        yield log


async def append(log: Any, *numbers: int, name: str = "x") -> None:
    for number in numbers:
        await log.append(events.Event(f"<{a_name()}@x>", name, {"number": number}))


def error_kind(error: Exception) -> ErrorKind:
    return ErrorKind.PERMANENT if isinstance(error, Permanent) else default_error_kind(error)


@asynccontextmanager
async def consuming(log: Any, handler: Any, attempts: int = 3) -> AsyncIterator[Any]:
    consumer = consumers.Consumer(log, handler, attempts, error_kind=error_kind)
    running = asyncio.create_task(consumer.run())
    yield consumer
    consumer.stop()
    log.stop_waiting()
    await asyncio.wait_for(running, LIMIT)
    await consumer.drain(1.0)


async def all_done(log: Any, handled: int, parked: int = 0) -> None:
    async def done() -> bool:
        lag = await log.lag("listener")
        return bool((lag.handled, lag.waiting, lag.pending, lag.parked) == (handled, 0, 0, parked))

    async with asyncio.timeout(LIMIT):
        while not await done():  # noqa: ASYNC110  Redis does not notify the test
            await asyncio.sleep(0.02)


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


async def until_counted(log: Any, **figures: int) -> None:
    """Wait for these counts, which are written a moment later."""

    async def counted() -> bool:
        lag = await log.lag("listener")
        return {name: getattr(lag, name) for name in figures} == figures

    async with asyncio.timeout(LIMIT):
        while not await counted():  # noqa: ASYNC110  Redis does not notify the test
            await asyncio.sleep(0.02)


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
        if log.extend(client, consumer.held()):
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
    for _ in range(consumers.CRASH_LIMIT):
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
    monkeypatch.setattr(consumers, "LONGEST_PAUSE", 0.1)
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
