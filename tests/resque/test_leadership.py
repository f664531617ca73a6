"""Which scheduler leads, beside schedulers of Ruby: each due job is enqueued once, by the leader."""

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

import resque
from resque import observe
from resque.delayed import DelayedJobs
from resque.doctor import Doctor
from tests.support.clockwork import Clockwork, Keys
from tests.support.programs import Program, a_name, wait_until
from tests.support.servers import Valkey

# Leadership


@contextmanager
def a_scheduler(valkey: Valkey) -> Iterator[Program]:
    program = Program([sys.executable, "-m", "5_remote_queue", "scheduler"], {"REDIS_URL": valkey.url})
    try:
        program.wait_for_line("ready to fire schedules")
        yield program
    finally:
        program.stop()


@pytest.mark.parametrize("lock", ["node_lock", "ruby_lock"])
async def test_we_promote_nothing_while_another_scheduler_leads(clockwork: Clockwork, lock: str) -> None:
    keys, client = clockwork.keys, clockwork.client
    client.set(getattr(keys, lock), "another:1")
    client.rpush(keys.delayed(1), '{"class":"late","queue":"q","args":[]}')
    client.zadd(keys.schedule, {"1": 1})
    assert await clockwork.housekeeping.promote() == 0
    assert clockwork.housekeeping.leader == "another:1"
    assert not await clockwork.housekeeping.resign() or lock == "ruby_lock"
    assert client.get(getattr(keys, lock)) == "another:1", "we do not release another program's lock"
    assert clockwork.jobs() == []
    client.delete(getattr(keys, lock))
    assert await clockwork.housekeeping.promote() == 1
    assert [job["class"] for job in clockwork.jobs()] == ["late"]


async def test_a_resque_scheduler_that_starts_beside_ours_leads_at_once(clockwork: Clockwork) -> None:
    """It tries SETNX every five seconds, so we must not hold its lock for long."""
    keys, client = clockwork.keys, clockwork.client
    await clockwork.lead()
    assert client.setnx(keys.ruby_lock, "ruby:1")
    client.rpush(keys.delayed(1), '{"class":"late","queue":"q","args":[]}')
    client.zadd(keys.schedule, {"1": 1})
    assert await clockwork.housekeeping.promote() == 0
    observer = observe.Observer(clockwork.redis, keys)
    assert await observer.leader() == clockwork.housekeeping.leader == "ruby:1"


async def test_resque_scheduler_fires_those_in_redis_and_we_fire_those_in_code(clockwork: Clockwork) -> None:
    keys, client = clockwork.keys, clockwork.client
    schedules = clockwork.another(resque.Schedule("ours", "q", "ours", every="1m"))
    clockwork.put("tick", every="1m", queue="q", **{"class": "tick"})
    await schedules.fire()
    for name in ("ours", "tick"):
        clockwork.set_back(name, 60)
    client.set(keys.ruby_lock, "ruby:1")
    assert await schedules.fire() == 1
    assert [job["class"] for job in clockwork.jobs()] == ["ours"]
    client.delete(keys.ruby_lock)
    client.set(keys.node_lock, "node:1")
    assert await schedules.fire() == 1, "Node's leader knows no schedules"
    assert [job["class"] for job in clockwork.jobs()] == ["ours", "tick"]


@pytest.mark.parametrize("when", [{"cron": "* * * * *"}, {"every": "1m"}])
async def test_a_schedule_that_resque_scheduler_has_fired_is_not_fired_again(
    clockwork: Clockwork, when: dict[str, str]
) -> None:
    keys, client = clockwork.keys, clockwork.client
    clockwork.put("tick", queue="q", **when, **{"class": "tick"})
    await clockwork.schedules.fire()
    clockwork.set_back("tick", 600)
    client.hset(keys.last_enqueued, "tick", datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S +0000"))
    assert await clockwork.schedules.fire() == 0
    client.hset(keys.last_enqueued, "tick", "2099-01-01 00:00:00 +0000")
    assert await clockwork.schedules.fire() == 1, "a clock that was wrong keeps nothing back"
    last = datetime.strptime(client.hget(keys.last_enqueued, "tick"), "%Y-%m-%d %H:%M:%S %z")
    assert last.timestamp() == clockwork.mark("tick"), "and we say when we fired, as Ruby does"


async def test_a_second_that_resque_scheduler_fires_while_we_look_is_not_fired_again(
    clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was the leader when we read the marks, has fired the schedule, and has released its lock since."""
    keys, client = clockwork.keys, clockwork.client
    clockwork.put("tick", queue="q", cron="* * * * *", **{"class": "tick"})
    await clockwork.schedules.fire()
    clockwork.set_back("tick", 60)

    async def ruby_fires(redis: Any) -> float:
        client.hset(keys.last_enqueued, "tick", datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S +0000"))
        return time.time()

    monkeypatch.setattr("resque.schedules.redis_time", ruby_fires)
    assert await clockwork.schedules.fire() == 0
    monkeypatch.undo()
    assert (await clockwork.schedules.fire(), clockwork.jobs()) == (0, [])


async def test_a_resque_scheduler_cannot_begin_in_the_moment_in_which_we_fire(clockwork: Clockwork) -> None:
    """It would fire the same second, because it looks at the clock only three times a second."""
    keys, client = clockwork.keys, clockwork.client
    schedules = clockwork.another(resque.Schedule("ours", "q", "ours", every="1m"))
    await schedules.fire()
    clockwork.set_back("ours", 60)
    assert (await schedules.fire(), client.exists(keys.ruby_lock)) == (1, 0), "Ruby does not know ours"
    clockwork.put("tick", queue="q", cron="* * * * * *", **{"class": "tick"})
    await schedules.fire()
    clockwork.set_back("tick", 60)
    assert await schedules.fire() == 1
    assert not client.setnx(keys.ruby_lock, "ruby:1")
    assert (await observe.Observer(clockwork.redis, keys).leader(), clockwork.housekeeping.leader) == ("six-ways",) * 2
    wait_until(lambda: client.setnx(keys.ruby_lock, "ruby:1"), "a moment later it leads")
    client.delete(keys.ruby_lock)
    assert client.persist(keys.guarded)
    for _ in range(3):
        clockwork.set_back("tick", 60)
        assert await schedules.fire() >= 1
        assert client.setnx(keys.ruby_lock, "ruby:1"), "a schedule that fires each second does not keep it out"
        client.delete(keys.ruby_lock)


async def test_a_mark_from_a_clock_that_was_ahead_does_not_stop_a_schedule(clockwork: Clockwork) -> None:
    clockwork.put("tick", cron="* * * * *", queue="q", **{"class": "tick"})
    await clockwork.schedules.fire()
    clockwork.set_back("tick", -7200)
    await clockwork.schedules.fire()
    assert clockwork.mark("tick") <= time.time()
    clockwork.set_back("tick", 120)
    assert await clockwork.schedules.fire() == 1


@pytest.mark.parametrize("more", [{}, {"queue": "q", "rails_env": "production"}])
async def test_the_doctor_reports_schedules_for_ruby_only_while_no_ruby_scheduler_leads(
    clockwork: Clockwork, more: dict[str, str]
) -> None:
    clockwork.put("tick", cron="* * * * *", **{"class": "Tick"}, **more)
    doctor = Doctor(clockwork.redis, clockwork.keys)
    assert [finding.key for finding in await doctor.examine() if "only resque-scheduler" in finding.what] == [
        f"{clockwork.keys.cron_schedules} 'tick'"
    ]
    clockwork.client.set(clockwork.keys.ruby_lock, "ruby:1", ex=180)
    assert not [finding for finding in await doctor.examine() if "only resque-scheduler" in finding.what]


async def test_another_program_s_leader_that_moves_nothing_is_logged(
    clockwork: Clockwork, caplog: pytest.LogCaptureFixture
) -> None:
    """After a kill, the lock stays for up to 180 seconds."""
    keys, client = clockwork.keys, clockwork.client
    delayed = DelayedJobs(resque.Queue(clockwork.redis, keys.namespace))
    client.set(keys.ruby_lock, "ruby:1", ex=180)
    due = int(time.time()) - 100
    client.rpush(keys.delayed(due), *['{"class":"late","queue":"q","args":[]}'] * 3)
    client.zadd(keys.schedule, {str(due): due})
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert await clockwork.housekeeping.promote() == 0
    [line] = caplog.messages
    assert line.startswith("the leader ruby:1 has not moved jobs that have been due for 10")
    jobs, seconds = await delayed.overdue()
    assert (jobs, 100 <= seconds < 130) == (3, True)
    doctor = Doctor(clockwork.redis, keys)
    [finding] = [finding for finding in await doctor.examine() if "overdue" in finding.what]
    assert "3 delayed jobs are overdue" in finding.what
    assert "the leader ruby:1 may be dead" in finding.what
    client.delete(keys.ruby_lock)
    assert await clockwork.housekeeping.promote() == 3
    assert await delayed.overdue() == (0, 0.0)


async def test_our_lock_expires_soon_and_our_last_worker_releases_it(clockwork: Clockwork) -> None:
    keys, client = clockwork.keys, clockwork.client
    assert 0 < client.pttl(keys.node_lock) <= 10_000
    assert not client.exists(keys.ruby_lock)
    client.zadd(keys.leases, {"host:1+1:q": 1})
    assert not await clockwork.housekeeping.resign(), "a worker of ours goes on leading"
    client.delete(keys.leases)
    assert await clockwork.housekeeping.resign()
    assert not client.exists(keys.node_lock)


def test_a_scheduler_alone_promotes_due_jobs_and_releases_its_lock(valkey: Valkey) -> None:
    client: Any = valkey.client
    keys, queue = Keys(), a_name()
    client.rpush(keys.delayed(1), f'{{"class":"late","queue":"{queue}","args":[]}}')
    client.zadd(keys.schedule, {"1": 1})
    with a_scheduler(valkey) as program:
        wait_until(lambda: client.llen(keys.queue(queue)) == 1, "the delayed job is promoted")
        assert client.get(keys.node_lock) == "six-ways"
        assert program.stop() == 0
        assert client.exists(keys.node_lock, keys.ruby_lock) == 0


def test_killed_schedulers_enqueue_no_second_twice(valkey: Valkey) -> None:
    client: Any = valkey.client
    keys, queue, name = Keys(), a_name(), a_name()
    client.hset(keys.cron_schedules, name, json.dumps({"cron": "* * * * * *", "queue": queue, "class": "tick"}))

    def mark() -> int:
        return int((client.hget(keys.cron, name) or "0").split()[0])

    with a_scheduler(valkey) as first, a_scheduler(valkey) as second:
        wait_until(lambda: client.llen(keys.queue(queue)) >= 1, "both fire")
        began, before = mark(), client.llen(keys.queue(queue))
        first.process.kill()
        wait_until(lambda: mark() >= began + 2, "the other goes on")
        second.process.kill()
        second.process.wait()
    enqueued = client.llen(keys.queue(queue)) - before
    client.hdel(keys.cron_schedules, name)
    assert 1 <= enqueued <= mark() - began
