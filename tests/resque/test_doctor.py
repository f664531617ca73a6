"""The doctor: it reports inconsistent keys, repairs what is safe to repair, and never discards a job."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import resque
from resque import wire
from tests.support.programs import until
from tests.support.resque import Jobs, Resque
from tests.support.ward import FAILURE, JOB, OURS, RUBY, WORKING, Ward, ago, of_dead_worker, ward_of


async def test_the_doctor_finds_nothing_wrong_with_our_own_keys(r: Resque, jobs: Jobs) -> None:
    """With queued, delayed, running and failed jobs."""
    await r.queue.enqueue("q", "note", [{"x": 1}])
    await r.queue.enqueue("q", "wait", [{"x": 2}])
    await r.queue.enqueue_in(1000, "q", "wait", [{"x": 3}])
    await r.queue.enqueue("other", "wait", [{"x": 4}])
    await r.queue.pause("other", "later", None)
    jobs.errors.append(resque.Permanent("no"))
    options: dict[str, Any] = {"drain_seconds": 0.01, "scaling": resque.Scaling(minimum=3)}
    async with ward_of(r.valkey, r.namespace) as ward:
        async with r.working(definitions=jobs.definitions(), **options) as worker:
            await until(lambda: worker.busy == 1 and r.events("Failed"))
            assert await ward.found() == []
        assert await ward.found() == []


Seed = Callable[[Ward], Awaitable[object]]

UNSAFE: dict[str, tuple[str, Seed]] = {
    "a key of a wrong type": (
        "is a string, and should be a list",
        lambda w: w.redis.set(w.keys.queue("q"), "x"),
    ),
    "a failed list of the wrong type": ("is a string, and should be a list", lambda w: w.redis.set(w.keys.failed, "x")),
    "workers of the wrong type": ("is a list, and should be a set", lambda w: w.redis.rpush(w.keys.workers, "x")),
    "leases of the wrong type": ("is a string, and should be a zset", lambda w: w.redis.set(w.keys.leases, "x")),
    "a schedule of the wrong type": ("is a string, and should be a zset", lambda w: w.redis.set(w.keys.schedule, "x")),
    "queues of the wrong type": ("is a string, and should be a set", lambda w: w.redis.set(w.keys.queues, "x")),
    "attempts of the wrong type": ("is a set, and should be a hash", lambda w: w.redis.sadd(w.keys.attempts, "x")),
    "a worker's record of the wrong type": (
        "is a list, and should be a string",
        lambda w: w.redis.rpush(w.keys.worker(RUBY), "x"),
    ),
    "a counter that is not a number": ("is not a number", lambda w: w.redis.set(w.keys.processed(), "many")),
    "a worker without a heartbeat": ("a worker without a heartbeat", lambda w: w.redis.sadd(w.keys.workers, RUBY)),
    "a leader's lock without an expiry": (
        "a leader's lock that never expires",
        lambda w: w.redis.set(w.keys.node_lock, "host:1"),
    ),
    "a failure that is not JSON": ("1 record: not JSON", lambda w: w.redis.rpush(w.keys.failed, b"\xff")),
    "a failure without a date": ("1 record: no date", lambda w: w.redis.rpush(w.keys.failed, '{"failed_at":5}')),
    "a failure whose backtrace is a string": (
        "1 record: the backtrace is not a list",
        lambda w: w.redis.rpush(w.keys.failed, FAILURE.replace("[]", '"x"')),
    ),
    "a failure without a job": (
        "1 record: cannot be retried, because there is no job in the record",
        lambda w: w.redis.rpush(w.keys.failed, FAILURE),
    ),
    "an attempt of a missing job": ("counts 1 job that", lambda w: w.redis.hset(w.keys.attempts, "gone", 1)),
    "a crash of a missing job": ("counts 1 job that", lambda w: w.redis.hset(w.keys.crashes, "gone", 1)),
}


@pytest.mark.parametrize("case", UNSAFE)
async def test_an_unsafe_repair_is_reported_but_not_offered(ward: Ward, case: str) -> None:
    what, seed = UNSAFE[case]
    await seed(ward)
    [(found, remedy)] = await ward.found()
    assert found.startswith(what) or what in found
    assert remedy == ""
    await ward.repair()
    assert len(await ward.found()) == 1


async def test_invalid_jobs_are_reported(ward: Ward) -> None:
    await ward.redis.sadd(ward.keys.queues, "q")
    await ward.redis.rpush(ward.keys.queue("q"), JOB, b"\xff", b"{", "[]", '{"class":5}')
    await ward.redis.rpush(ward.keys.delayed(5), JOB)
    await ward.redis.zadd(ward.keys.schedule, {"5": 5})
    assert [what for what, _ in await ward.found()] == [
        "2 invalid jobs (not JSON), which our workers set aside and Node loses",
        "1 invalid job (not a JSON object), which our workers set aside and Node loses",
        '1 invalid job (no "class"), which our workers set aside and Node loses',
        "1 invalid job (it names no queue), which our workers set aside and Ruby loses",
    ]


SAFE: dict[str, tuple[str, Seed]] = {
    "a queue that is missing in queues": (
        "jobs wait in a queue that is missing in queues",
        lambda w: w.redis.rpush(w.keys.queue("q"), JOB),
    ),
    "a member that is not a worker": ("is not HOST:PID:QUEUES", lambda w: w.redis.sadd(w.keys.workers, "x")),
    "a member without queues": ("is not HOST:PID:QUEUES", lambda w: w.redis.sadd(w.keys.workers, "host:7:")),
    "a member that is not UTF-8": ("is not HOST:PID:QUEUES", lambda w: w.redis.sadd(w.keys.workers, b"\xff:1:q")),
    "a worker of ours without a lease": ("a worker of ours without a lease", of_dead_worker),
    "a record of a missing worker": (
        "a key of a worker that no longer exists",
        lambda w: w.redis.set(w.keys.worker(RUBY), WORKING),
    ),
    "a start date of a missing worker": (
        "a key of a worker that no longer exists",
        lambda w: w.redis.set(w.keys.started(RUBY), "x"),
    ),
    "a lease that ended without its worker": (
        "a key of a worker that no longer exists",
        lambda w: w.redis.zadd(w.keys.leases, {OURS: ago(60) * 1000}),
    ),
    "an invalid heartbeat": (
        "a heartbeat that is not a date",
        lambda w: w.redis.hset(w.keys.heartbeats, RUBY, "soon"),
    ),
    "an old heartbeat of a missing worker": (
        "a heartbeat of a worker that does not exist",
        lambda w: w.redis.hset(w.keys.heartbeats, "x", wire.heartbeat_at(ago(400))),
    ),
    "an old ping of a missing worker": (
        "the ping of a worker that does not exist",
        lambda w: w.redis.set(w.keys.ping("host:7"), wire.ping("host:7", ["q"], ago(400))),
    ),
    "an invalid ping": ("the ping of a worker", lambda w: w.redis.set(w.keys.ping("host:7"), "[]")),
    "delayed jobs that are missing in the schedule": (
        "these jobs are missing in the schedule",
        lambda w: w.redis.rpush(w.keys.delayed(4_000_000_000), '{"class":"c","queue":"q"}'),
    ),
    "a second without jobs": (
        "scheduled, but there are no jobs at this second",
        lambda w: w.redis.zadd(w.keys.schedule, {"4000000000": 4_000_000_000}),
    ),
    "an invalid second": (
        "scheduled, but there are no jobs at this second",
        lambda w: w.redis.zadd(w.keys.schedule, {"x": 5}),
    ),
    "a wrong member of timestamps": (
        "says that a job waits at a second where it does not",
        lambda w: w.redis.sadd(w.keys.timestamps(JOB), "delayed:4000000000"),
    ),
}


@pytest.mark.parametrize("case", SAFE)
async def test_a_safe_repair_is_offered_and_done(ward: Ward, case: str) -> None:
    what, seed = SAFE[case]
    await seed(ward)
    [(found, remedy)] = await ward.found()
    assert found.startswith(what)
    assert remedy
    assert len(await ward.found()) == 1, "examining changes nothing"
    await ward.repair()
    assert await ward.found() == []
