"""Consumers that another process removes, and keys of other programs in the same Redis."""

import asyncio
import os
import subprocess
import sys
from typing import Any

import pytest
from redis.asyncio import Redis

from common.processes.chapter import chapter_module
from eventlog import consumers, events, partitions, streams, syndication
from tests.support.programs import LIMIT, ROOT, a_name, until

worker = chapter_module("6_event_bus.worker")


class Queue:
    """A fake queue that remembers the ids of its jobs."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    async def enqueue(self, queue: str, name: str, args: Any = (), job_id: str | None = None) -> bool:
        self.ids.append(str(job_id))
        return True


@pytest.fixture(params=["lua", "streams"])
def make_log(redis: Redis, request: pytest.FixtureRequest) -> Any:
    """Each call opens the same log as another process would."""
    make = partitions.PartitionedLog if request.param == "lua" else streams.StreamLog
    return lambda: make(redis, 10.0)


def an_event() -> Any:
    return events.Event(f"<{a_name()}@example.com>", "email_requested", {"to": "a@example.com"})


async def test_a_subscription_that_another_process_ends_and_renews_is_replayed_once(
    make_log: Any, redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(consumers, "CLAIM_SECONDS", 0.05)
    monkeypatch.setattr(consumers, "CHECK_SECONDS", 0.05)
    caplog.set_level("INFO")
    async with make_log() as log, make_log() as terminal:
        await syndication.subscribe(terminal, redis, "billing", "email_requested", "q", "C")
        queue = Queue()
        consumer = consumers.Consumer(log, syndication.Syndication(redis, queue), 3)
        running = asyncio.create_task(consumer.run())
        await log.append(an_event())
        await until(lambda: len(queue.ids) == 1)
        await syndication.unsubscribe(terminal, redis, "billing", "email_requested")
        await asyncio.sleep(0)
        await syndication.subscribe(terminal, redis, "billing", "email_requested", "q", "C")
        caplog.clear()
        for number in range(2, 12):  # each event takes a few claims
            await log.append(an_event())
            await until(lambda number=number: len(set(queue.ids)) >= number)  # type: ignore[misc]
        consumer.stop()
        log.stop_waiting()
        await running
        await consumer.drain(1.0)
        assert caplog.text.count("syndication is needed") <= 1
        assert await log.consumers() == ["syndication"]


async def test_a_replay_registers_a_consumer_that_another_process_has_removed(make_log: Any) -> None:
    async with make_log() as log, make_log() as other:
        await log.claim("audit", 1)
        await other.leave("audit")
        await log.replay("audit", "beginning")
        assert await other.consumers() == ["audit"]


async def test_a_consumer_that_claims_is_registered_again(make_log: Any) -> None:
    async with make_log() as log, make_log() as other:
        await log.claim("audit", 1)
        await other.leave("audit")
        async with asyncio.timeout(LIMIT):
            while await other.consumers() != ["audit"]:
                await log.claim("audit", 1, 0.1)


async def test_reading_the_lag_of_a_consumer_that_has_left_does_not_register_it(make_log: Any) -> None:
    async with make_log() as log, make_log() as page:
        await log.append(an_event())
        await log.claim("audit", 1)
        await log.leave("audit")
        await page.lag("audit")
        assert await log.consumers() == []


async def test_the_leases_of_a_consumer_that_has_left_are_trimmed_with_its_events(redis: Redis) -> None:
    async with partitions.PartitionedLog(redis, 10.0, partition_events=1) as log:
        for _ in range(3):
            await log.append(an_event())
        assert await log.claim("audit", 10)
        await log.leave("audit")
        await log.trim(0.0)
        [last] = [one.number for one in await log.partitions()]
        left = [key async for key in redis.scan_iter("eventlog:*:audit")]
        assert {key.split(b"{")[1].split(b"}")[0] for key in left} <= {last.encode()}


async def test_the_log_of_another_program_is_not_changed(make_log: Any, redis: Redis) -> None:
    """The design comes from a program that numbers its partitions in minutes and uses other keys."""
    await redis.zadd("eventr:partitions", {"29000000": 29000000})
    await redis.rpush("eventr:partitions:29000000", "its event")
    async with make_log() as log:
        await log.append(an_event())
        assert len(await log.claim("audit", 10)) == 1
        await log.trim(0.0, force=True)
        keys = [key async for key in redis.scan_iter("*")]
        assert {key for key in keys if not key.startswith(b"eventlog:")} == {
            b"eventr:partitions",
            b"eventr:partitions:29000000",
        }
    assert await redis.zrange("eventr:partitions", 0, -1) == [b"29000000"]
    assert await redis.lrange("eventr:partitions:29000000", 0, -1) == [b"its event"]


def syndication_command(*words: str, url: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "6_event_bus.syndication", *words],
        cwd=ROOT,
        env=os.environ | {"REDIS_URL": url},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )


def test_without_redis_the_command_prints_one_line() -> None:
    ended = syndication_command("billing", "email_requested", url="redis://127.0.0.1:1/0")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("Redis: ")
    assert ended.stderr.count("\n") == 1


def test_help_is_printed_to_standard_output() -> None:
    ended = syndication_command("--help", url="redis://127.0.0.1:1/0")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "APPLICATION EVENT [QUEUE CLASS]" in ended.stdout


BAD = ["nonsense=hunter2", "socket_timeout=hunter2", "db=hunter2", "health_check_interval=hunter2"]


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["5_remote_queue", "worker"], BAD[0]),
        (["6_event_bus", "worker"], BAD[1]),
        (["6_event_bus", "server"], BAD[2]),
        (["6_event_bus.syndication", "a", "b"], BAD[3]),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else words,
)
def test_a_bad_option_in_the_url_prints_one_line_without_the_value(words: list[str], option: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env=os.environ
        | {"REDIS_URL": f"redis://127.0.0.1:1/0?{option}", "PORT": "0", "SMTP_URL": "smtp://127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("REDIS_URL: ")
    assert ended.stderr.count("\n") == 1
    assert "hunter2" not in ended.stderr + ended.stdout
