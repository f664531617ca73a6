"""Each event becomes exactly one job for each application that subscribed."""

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

import resque
from eventlog import consumers, partitions, scripts, streams, syndication
from eventlog import events as log_module
from tests.support.event_bus import LOGS, event_bus, settled
from tests.support.load import Load
from tests.support.programs import LIMIT, ROOT, Strategy, a_name, someone, until, wait_until
from tests.support.servers import Inbox, Valkey, valkey_of

Event = log_module.Event


class DyingQueue:
    """A fake queue whose worker dies before the enqueue with this number."""

    def __init__(self, dies_at: int) -> None:
        self.jobs: dict[str, tuple[str, str, Any]] = {}
        self.calls = 0
        self._dies_at = dies_at

    async def enqueue(self, queue: str, name: str, args: Sequence[Any] = (), job_id: str | None = None) -> bool:
        self.calls += 1
        if self.calls == self._dies_at:
            raise ConnectionResetError("killed")
        assert job_id is not None
        return self.jobs.setdefault(job_id, (queue, name, args[0])) is None


@pytest.fixture(params=LOGS)
async def log(redis: Redis, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    make = partitions.PartitionedLog if request.param == "lua" else streams.StreamLog
    async with make(redis, 10.0) as log:
        yield log


def an_event(position: str = f"{2**60}-0") -> Any:
    return Event(f"<{a_name()}@example.com>", "email_requested", {"to": "a@example.com"}, 2e9, position)


@pytest.mark.parametrize("dies_at", range(1, 8))
async def test_a_worker_that_dies_between_two_jobs_causes_no_missing_and_no_second_job(
    log: Any, redis: Redis, dies_at: int
) -> None:
    for application in ("billing", "crm"):
        await syndication.subscribe(log, redis, application, "email_requested", f"{application}Queue", "Noted")
    queue = DyingQueue(dies_at)
    bus, events = syndication.Syndication(redis, queue), [an_event() for _ in range(3)]
    for _ in range(2):  # the second time, another process has taken over
        try:
            await bus.handle_many(events)
        except ConnectionResetError:
            await bus.handle_many(events)
    assert set(queue.jobs) == {f"{event.id}:{application}" for event in events for application in ("billing", "crm")}
    assert queue.jobs[f"{events[0].id}:crm"] == (
        "crmQueue",
        "Noted",
        {"event": "email_requested", "at": 2_000_000_000_000, "data": {"to": "a@example.com"}},
    )


async def test_a_subscription_covers_only_later_events_with_its_name(log: Any, redis: Redis) -> None:
    await log.append(an_event())
    await syndication.subscribe(log, redis, "billing", "email_requested", "q", "C")
    queue = DyingQueue(0)
    bus = syndication.Syndication(redis, queue)
    await bus.handle_many([an_event("0-0"), an_event()._replace(name="something_else")])
    assert queue.jobs == {}
    assert await bus.needed()


async def test_a_subscription_covers_exactly_the_events_that_are_appended_after_it(log: Any, redis: Redis) -> None:
    """Clocks cannot decide this: all events are appended within a few milliseconds."""
    for number in range(20):
        await log.append(an_event())
        await syndication.subscribe(log, redis, f"application{number}", "email_requested", "q", "C")
    await log.append(an_event())
    queue = DyingQueue(0)
    await syndication.Syndication(redis, queue).handle_many(
        [one.event() for one in await log.claim("syndication", 100)]
    )
    jobs = Counter(job.rpartition(":")[2] for job in queue.jobs)
    assert jobs == {f"application{number}": 20 - number for number in range(20)}


async def test_a_clock_that_was_ahead_during_the_subscription_hides_no_event(
    redis: Redis, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = scripts.source
    clock = (
        b"(function() local t = redis.call('TIME') return {t[1] + (redis.call('GET', 'test:clock') or 0), t[2]} end)()"
    )
    monkeypatch.setattr(scripts, "source", lambda *name: source(*name).replace(b"redis.call('TIME')", clock))
    async with partitions.PartitionedLog(redis, 10.0) as log:
        valkey.client.set("test:clock", 3600)
        await log.append(an_event())
        await syndication.subscribe(log, redis, "billing", "email_requested", "q", "C")
        valkey.client.set("test:clock", 0)
        await log.append(an_event())
        queue = DyingQueue(0)
        await syndication.Syndication(redis, queue).handle_many(
            [one.event() for one in await log.claim("syndication", 100)]
        )
    assert len(queue.jobs) == 1


async def test_after_the_last_subscription_the_consumer_leaves_the_log(
    log: Any, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "CLAIM_SECONDS", 0.1)
    monkeypatch.setattr(consumers, "CHECK_SECONDS", 0.1)

    async def until_there_are(*names: str) -> None:
        async with asyncio.timeout(LIMIT):
            while await log.consumers() != [*names]:  # noqa: ASYNC110  Redis does not notify the test
                await asyncio.sleep(0.01)

    for application in ("billing", "crm"):
        await syndication.subscribe(log, redis, application, "email_requested", "q", "C")
    queue = DyingQueue(0)
    consumer = consumers.Consumer(log, syndication.Syndication(redis, queue), 3)
    running = asyncio.create_task(consumer.run())
    await log.append(an_event())
    await until(lambda: len(queue.jobs) == 2)
    await syndication.unsubscribe(log, redis, "billing", "email_requested")
    assert await log.consumers() == ["syndication"]
    await syndication.unsubscribe(log, redis, "crm", "email_requested")
    await until_there_are()
    for application in ("billing", "late"):
        await syndication.subscribe(log, redis, application, "email_requested", "q", "C")
    await log.append(an_event())
    await until(lambda: len(queue.jobs) == 4)
    await until_there_are("syndication")
    consumer.stop()
    log.stop_waiting()
    await running
    await consumer.drain(1.0)


@pytest.mark.parametrize(
    "invalid",
    [b"", b"\xff", b"[]", b"{}", *[b'{"event": "", "queue": "", "class": "", "since": %s}' % s for s in (b"1", b'""')]],
)
async def test_an_invalid_subscription_is_ignored(redis: Redis, valkey: Valkey, invalid: bytes) -> None:
    valkey.client.hset("eventlog:subscriptions", "billing email_requested", invalid)
    assert await syndication.subscriptions(redis) == []
    assert not await syndication.Syndication(redis, DyingQueue(0)).needed()


async def test_an_event_that_cannot_be_a_job_raises_bad_event(log: Any, redis: Redis) -> None:
    await syndication.subscribe(log, redis, "billing", "email_requested", "q", "C")
    bus = syndication.Syndication(redis, resque.Queue(redis))
    with pytest.raises(log_module.BadEvent, match="2\\^53"):
        await bus.handle(an_event()._replace(data={"number": 2**60}))


async def test_the_queue_of_strategy_5_takes_each_id_once(log: Any, redis: Redis, valkey: Valkey) -> None:
    await syndication.subscribe(log, redis, "billing", "email_requested", "billing", "Noted")
    events = [an_event() for _ in range(100)]
    buses = [syndication.Syndication(redis, resque.Queue(redis)) for _ in range(3)]
    await asyncio.gather(*[bus.handle_many(events) for bus in buses])
    assert jobs_in(valkey, "billing") == {f"{event.id}:billing" for event in events}


def jobs_in(valkey: Valkey, queue: str) -> set[str]:
    ids = [json.loads(job)["args"][0]["id"] for job in valkey.client.lrange(f"resque:queue:{queue}", 0, -1)]
    assert len(set(ids)) == len(ids), "no job is in the queue twice"
    return set(ids)


def test_killed_workers_under_load_make_one_job_of_each_event_for_each_application(
    inbox: Inbox, tmp_path: Path
) -> None:
    with event_bus(inbox, tmp_path) as strategy:
        assert strategy.send(someone()).status == 202, "before the first subscription"
        for application in ("billing", "crm"):
            subscribe_in_a_terminal(strategy, tmp_path, application)
        with Load(strategy, someone(), clients=4) as load:
            for _ in range(2):
                load.wait_for_more(20)
                strategy.kill("worker")
        settled(strategy)
        valkey = valkey_of(tmp_path)
        for application in ("billing", "crm"):
            expected = {f"{event_id}:{application}" for event_id in load.accepted}
            wait_until(lambda a=application, e=expected: e <= jobs_in(valkey, a), "the queue has all jobs")  # type: ignore[misc]
            assert jobs_in(valkey, application) == expected


def subscribe_in_a_terminal(strategy: Strategy, data_dir: Path, application: str) -> None:
    words = [application, "email_requested", application, "Noted"]
    printed = subprocess.run(
        [sys.executable, "-m", "6_event_bus.syndication", *words],
        cwd=ROOT,
        env=os.environ | {"REDIS_URL": valkey_of(data_dir).url},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{application}: email_requested becomes Noted in {application}" in printed.stdout
