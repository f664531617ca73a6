"""The repairs of `doctor` one by one: what each changes, and what it must not touch."""

import json
import time
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from resque import queue as queue_module
from resque import wire
from tests.support.programs import a_name
from tests.support.servers import Valkey
from tests.support.ward import FAILURE, JOB, OURS, RUBY, WORKING, Ward, ago, of_dead_worker, ward_of

Seed = Callable[[Ward], Awaitable[object]]


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


async def test_unsafe_settings_are_reported(ward: Ward) -> None:
    redis: Redis = ward.redis
    await redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        [finding] = await ward.doctor.examine()
    finally:
        await redis.config_set("maxmemory-policy", "noeviction")
    assert finding.key == "the server's settings"
    assert "discards waiting work" in finding.what
