"""The doctor: it reports inconsistent keys, repairs what is safe to repair, and never discards a job."""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis

import resque as worker_module
from asynckit.redis_client import redis_client
from resque import doctor as doctor_module
from resque import keys as keys_module
from resque import queue as queue_module
from resque import wire
from tests.support.programs import LIMIT, Valkey, a_name

OURS = "host.0123abcd:7+1:q"
RUBY = "host:7:q"
JOB = '{"class":"c","args":[12345678901234567890123,1.0]}'
WORKING = f'{{"run_at":"2026-11-21T07:39:33Z","worker":"host:7","queue":"q","payload":{JOB}}}'
UNSERVED = "jobs wait here, and no live worker serves this queue"
FAILURE = json.dumps({"failed_at": "2026/11/21 07:39:33 UTC", "backtrace": [], "worker": RUBY, "queue": "q"})


@dataclass
class Ward:
    """The test's own namespace and its doctor."""

    redis: Any
    keys: Any
    doctor: Any

    async def found(self) -> list[tuple[str, str]]:
        """All findings and their remedies, except queues without a worker, which most tests have."""
        findings = [(finding.what, finding.remedy) for finding in await self.doctor.examine()]
        return [finding for finding in findings if finding[0] != UNSERVED]

    async def unserved(self) -> list[str]:
        return [finding.key for finding in await self.doctor.examine() if finding.what == UNSERVED]

    async def repair(self) -> None:
        for finding in await self.doctor.examine():
            if finding.repair:
                assert await finding.repair(), finding


@asynccontextmanager
async def ward_of(valkey: Valkey, namespace: str) -> AsyncIterator[Ward]:
    async with redis_client(valkey.url) as redis:
        keys = keys_module.Keys(namespace)
        yield Ward(redis, keys, doctor_module.Doctor(redis, keys))


@pytest.fixture
async def ward(valkey: Valkey) -> AsyncIterator[Ward]:
    async with ward_of(valkey, a_name()) as ward:
        yield ward


def ago(seconds: float) -> float:
    return time.time() - seconds


async def test_the_doctor_finds_nothing_wrong_with_our_own_keys(ward: Ward, valkey: Valkey) -> None:
    """With queued, delayed, running and failed jobs."""
    import asyncio

    queue = queue_module.Queue(ward.redis, ward.keys.namespace)
    await queue.enqueue("q", "hold", [{"x": 1}])
    await queue.enqueue("q", "fail", [{"x": 2}])
    await queue.enqueue_in(1000, "q", "hold", [{"x": 3}])
    await queue.enqueue("other", "hold", [{"x": 4}])
    await queue.pause("other", "later", None)
    held, failed, stop = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def hold(_: object) -> None:
        held.set()
        await asyncio.Event().wait()

    async def fail(_: object) -> None:
        raise worker_module.Permanent("no")

    async def stopped() -> str:
        await stop.wait()
        return "the test has seen enough"

    def hook(event: Any) -> None:
        if type(event).__name__ == "Failed":
            failed.set()

    definitions = {"hold": worker_module.Definition(hold), "fail": worker_module.Definition(fail)}
    async with worker_module.open_connections(valkey.url) as connections:
        worker = worker_module.Worker(
            connections,
            ["q"],
            definitions,
            namespace=ward.keys.namespace,
            drain_seconds=0.01,
            scaling=worker_module.Scaling(minimum=3),
            hook=hook,
        )
        running = asyncio.create_task(worker.run(stopped))
        async with asyncio.timeout(LIMIT):
            await held.wait()
            await failed.wait()
        assert await ward.found() == []
        stop.set()
        await running
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


async def of_dead_worker(ward: Ward) -> None:
    await ward.redis.set(ward.keys.worker(OURS), WORKING)
    await ward.redis.sadd(ward.keys.workers, OURS)


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


async def test_delayed_jobs_with_a_wrong_score_are_scheduled_for_their_second(ward: Ward) -> None:
    await ward.redis.rpush(ward.keys.delayed(4_000_000_000), '{"class":"c","queue":"q"}')
    await ward.redis.zadd(ward.keys.schedule, {"4000000000": 5})
    [(what, _)] = await ward.found()
    assert what == "these jobs are scheduled for 5, which is not their second"
    await ward.repair()
    assert await ward.redis.zscore(ward.keys.schedule, "4000000000") == 4_000_000_000


@pytest.mark.parametrize("worker", [OURS, RUBY, "x", b"\xff:1:q"])
async def test_a_job_that_no_worker_holds_goes_to_the_failed_list(ward: Ward, worker: str | bytes) -> None:
    record = f"{ward.keys.namespace}:worker:".encode() + (worker.encode() if isinstance(worker, str) else worker)
    await ward.redis.set(record, WORKING)
    if worker != RUBY:
        await ward.redis.sadd(ward.keys.workers, worker)
    await ward.repair()
    assert await ward.redis.exists(record, ward.keys.workers) == 0
    [failure] = await ward.redis.lrange(ward.keys.failed, 0, -1)
    assert f'"payload":{JOB},'.encode() in failure, "the exact job"
    members = json.loads(failure)
    assert (members["queue"], members["exception"]) == ("q", "WorkerLost")
    assert await ward.found() == []


async def test_a_job_that_is_already_in_the_failed_list_is_not_added_again(ward: Ward) -> None:
    """Node's forceClean names the worker without its queues and does not delete its record."""
    await ward.redis.set(ward.keys.worker(RUBY), WORKING)
    record = FAILURE[:-1].replace(RUBY, "host:7") + f',"payload":{JOB}}}'
    await ward.redis.rpush(ward.keys.failed, record)
    await ward.repair()
    assert await ward.redis.lrange(ward.keys.failed, 0, -1) == [record.encode()]
    assert await ward.redis.exists(ward.keys.worker(RUBY)) == 0


async def test_an_invalid_record_is_kept_as_a_string(ward: Ward) -> None:
    await ward.redis.set(ward.keys.worker(RUBY), b"\xff{")
    await ward.repair()
    [failure] = [json.loads(text) for text in await ward.redis.lrange(ward.keys.failed, 0, -1)]
    assert (failure["payload"]["class"], failure["raw"]) == ("Unreadable", "\\xff{")


@pytest.mark.parametrize("seconds", [200, 400])
async def test_a_worker_of_ruby_is_dead_after_five_minutes_and_not_before(ward: Ward, seconds: float) -> None:
    await ward.redis.sadd(ward.keys.workers, RUBY)
    await ward.redis.hset(ward.keys.heartbeats, RUBY, wire.heartbeat_at(ago(seconds)))
    found = await ward.found()
    assert [what.startswith("a worker that has been silent for 6 min") for what, _ in found] == [True] * (seconds > 300)
    await ward.repair()
    assert bool(await ward.redis.exists(ward.keys.workers)) == (seconds < 300)


async def test_a_worker_of_node_is_dead_after_an_hour(ward: Ward) -> None:
    await ward.redis.sadd(ward.keys.workers, RUBY)
    await ward.redis.set(ward.keys.ping("host:7"), wire.ping("host:7", ["q"], ago(3000)))
    assert await ward.found() == []
    await ward.redis.set(ward.keys.ping("host:7"), wire.ping("host:7", ["q"], ago(4000)))
    await ward.repair()
    assert await ward.redis.keys(f"{ward.keys.namespace}:*") == []


@pytest.mark.parametrize(
    ("worker", "heard"), [(OURS, "q"), (RUBY, "q"), ("host:7:other,q", "q"), ("host:7:*", "*"), ("host:7:other", "")]
)
async def test_a_queue_with_jobs_but_without_a_live_worker_is_reported(ward: Ward, worker: str, heard: str) -> None:
    await ward.redis.sadd(ward.keys.queues, "q", "pictures", "empty")
    for queue in ("q", "pictures"):
        await ward.redis.rpush(ward.keys.queue(queue), JOB)
    both = [ward.keys.queue("pictures"), ward.keys.queue("q")]
    assert await ward.unserved() == both
    await ward.redis.sadd(ward.keys.workers, worker)
    if worker == OURS:
        await ward.redis.zadd(ward.keys.leases, {worker: (time.time() + 60) * 1000})
    else:
        await ward.redis.hset(ward.keys.heartbeats, worker, wire.heartbeat_at(ago(10)))
    assert await ward.unserved() == [key for key in both if heard != "*" and (heard != "q" or key == both[0])]
    await ward.redis.zadd(ward.keys.leases, {worker: ago(1) * 1000})
    assert await ward.unserved() == both, "the lease has ended"


async def test_a_live_worker_that_was_removed_is_reported_but_not_repaired(ward: Ward) -> None:
    await ward.redis.set(ward.keys.worker(RUBY), WORKING)
    await ward.redis.hset(ward.keys.heartbeats, RUBY, wire.heartbeat_at(ago(10)))
    [(what, remedy)] = await ward.found()
    assert what.startswith("a program removed this worker from workers")
    assert remedy == ""


async def test_a_worker_with_a_valid_lease_is_not_touched(ward: Ward) -> None:
    await of_dead_worker(ward)
    [finding] = await ward.doctor.examine()
    await ward.redis.zadd(ward.keys.leases, {OURS: (time.time() + 60) * 1000})
    assert not await finding.repair(), "the keys have changed since the finding"
    assert await ward.found() == []
    assert await ward.redis.get(ward.keys.worker(OURS)) == WORKING.encode()


@pytest.mark.parametrize("case", ["heartbeat", "ping", "schedule", "timestamps", "worker"])
async def test_a_repair_does_nothing_if_the_keys_have_changed(ward: Ward, case: str) -> None:
    """The problem disappears between the finding and the repair."""
    keys, redis = ward.keys, ward.redis
    job = '{"class":"c","queue":"q"}'
    before: dict[str, Seed] = {
        "heartbeat": lambda w: redis.hset(keys.heartbeats, RUBY, "soon"),
        "ping": lambda w: redis.set(keys.ping("host:7"), "[]"),
        "schedule": lambda w: redis.zadd(keys.schedule, {"4000000000": 4_000_000_000}),
        "timestamps": lambda w: redis.sadd(keys.timestamps(job), "delayed:4000000000"),
        "worker": lambda w: redis.set(keys.worker(RUBY), WORKING),
    }
    await before[case](ward)
    [finding] = await ward.doctor.examine()
    after: dict[str, Seed] = {
        "heartbeat": lambda w: redis.hset(keys.heartbeats, RUBY, wire.heartbeat_at(time.time())),
        "ping": lambda w: redis.set(keys.ping("host:7"), wire.ping("host:7", ["q"], time.time())),
        "schedule": lambda w: redis.rpush(keys.delayed(4_000_000_000), job),
        "timestamps": lambda w: redis.rpush(keys.delayed(4_000_000_000), job),
        "worker": lambda w: redis.sadd(keys.workers, RUBY),
    }
    await after[case](ward)
    seen = {key: await redis.dump(key) for key in await redis.keys(f"{keys.namespace}:*")}
    assert not await finding.repair()
    assert {key: await redis.dump(key) for key in await redis.keys(f"{keys.namespace}:*")} == seen


async def test_waiting_running_and_delayed_jobs_keep_their_counts(ward: Ward) -> None:
    queue = queue_module.Queue(ward.redis, ward.keys.namespace)
    await queue.enqueue("q", "c", [{"id": "1"}])
    await queue.enqueue_in(1000, "q", "c", [{"id": "2"}])
    await ward.redis.hset(ward.keys.attempts, mapping={"1": 1, "2": 1, "3": 1})
    [(what, _)] = await ward.found()
    assert what.startswith("counts 1 job ")


async def test_a_namespace_may_contain_the_characters_of_a_pattern(valkey: Valkey) -> None:
    name = a_name()
    async with ward_of(valkey, f"{{{name}}}[a]*?\\") as ward, ward_of(valkey, f"{{{name}}}axx") as other:
        await ward.redis.rpush(ward.keys.queue("q"), JOB)
        await other.redis.rpush(other.keys.queue("q"), JOB)
        assert len(await ward.found()) == 1
        await ward.repair()
        assert await ward.found() == []
        assert len(await other.found()) == 1


async def test_unsafe_settings_are_reported(ward: Ward, valkey: Valkey) -> None:
    redis: Redis = ward.redis
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        [finding] = await ward.doctor.examine()
    finally:
        await redis.config_set("maxmemory-policy", "noeviction")
    assert finding.key == "the server's settings"
    assert "discards waiting work" in finding.what
