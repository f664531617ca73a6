"""A Redis that is full, has keys of the wrong type, or was unreachable: the worker loses no job."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis.exceptions import ResponseError

import resque
from resque import registration, wire
from tests.support.programs import frozen, until
from tests.support.resque import Jobs, Resque, a_resque
from tests.support.servers import running_valkey


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[Resque]:
    """A Valkey of the test's own, for tests that affect the whole server."""
    with running_valkey(tmp_path / "own") as valkey:
        async with a_resque(valkey) as r:
            yield r


# A full Redis accepts no jobs, but workers can still run the jobs that it has.


async def test_a_worker_that_starts_while_redis_is_full_runs_all_jobs(own: Resque, jobs: Jobs) -> None:
    await own.queue.enqueue("q", "note", ["held by a dead worker"])
    [_] = (await own.claims().take(await own.slots(lease_seconds=0.05), busy=False)).claims
    await own.queue.enqueue_in(0.1, "q", "note", ["planned"])
    for number in range(20):
        await own.queue.enqueue("q", "note", [number])
    own.get("RPUSH", own.keys.queue("q"), "invalid")
    jobs.errors = [ValueError("retry"), resque.Permanent("never")]
    own.get("CONFIG", "SET", "maxmemory", 1)
    async with own.working(definitions=jobs.definitions(base_seconds=0.001)):
        await until(lambda: len(own.events("Succeeded")) == 21 and len(own.events("Failed")) == 2)
    assert len({str(done) for done in jobs.done}) == 21
    assert [type(event.error).__name__ for event in own.events("Reenqueued")] == ["ValueError"]
    assert sorted(record["exception"] for record in own.failed()) == ["BadJob", "Permanent"]
    assert own.worker_keys() == []


async def test_a_worker_keeps_its_lease_and_its_job_while_redis_is_full(own: Resque, jobs: Jobs) -> None:
    await own.queue.enqueue("q", "wait", [1])
    async with own.working(definitions=jobs.definitions(), lease_seconds=2.0) as worker:
        await until(lambda: worker.busy)
        own.get("CONFIG", "SET", "maxmemory", 1)
        [worker_id, *_] = own.get("ZRANGE", own.keys.leases, 0, -1)
        lease = own.get("ZSCORE", own.keys.leases, worker_id)
        beaten = "there was a heartbeat after the lease of then would have ended"
        await until(lambda: (own.get("ZSCORE", own.keys.leases, worker_id) or 0) > lease + 2000, beaten)
        jobs.gate.set()
        await until(lambda: own.events("Succeeded"))
    assert (jobs.done, len(own.events("Started")), own.events("CleanedWorker")) == ([(1,)], 1, [])


async def test_an_idle_worker_finds_jobs_while_redis_is_full(own: Resque, jobs: Jobs) -> None:
    """The waiting command may need memory, so a full Redis refuses it."""
    async with own.working(definitions=jobs.definitions()):
        await until(lambda: own.events("Polled"))
        await own.queue.enqueue_in(0.1, "q", "note", ["planned"])
        own.get("CONFIG", "SET", "maxmemory", 1)
        await until(lambda: jobs.done)


# A job whose destination key has the wrong type stays at its source.


@pytest.mark.parametrize("blocked", ["failed", "queue", "schedule", "delayed"])
async def test_a_job_whose_destination_has_the_wrong_type_stays_in_its_record(r: Resque, blocked: str) -> None:
    await r.queue.enqueue("q", "note", [1])
    reserve = r.claims()
    [claim] = (await reserve.take(await r.slots(), busy=False)).claims
    now = int(time.time())
    ways: dict[str, tuple[list[str], Callable[[], Awaitable[bool]]]] = {
        "failed": ([r.keys.failed], lambda: reserve.give_up(claim, "ValueError", "no", [])),
        "queue": ([r.keys.queue("q")], lambda: reserve.release(claim)),
        "schedule": ([r.keys.schedule], lambda: reserve.retry(claim, 1000)),
        "delayed": ([r.keys.delayed(now + s) for s in range(1000, 1060)], lambda: reserve.retry(claim, 1000)),
    }
    targets, settle = ways[blocked]
    for key in targets:
        r.get("SET", key, "of another type")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await settle()
    assert orjson.loads(r.get("GET", r.keys.worker(claim.slot.id)))["payload"]["args"] == [1]
    r.get("DEL", *targets)
    assert await settle(), "it moves there when the key is repaired"
    assert len(r.waiting()) + len(r.failed()) + len(await r.queue.delayed()) == 1
    assert r.get("EXISTS", r.keys.worker(claim.slot.id)) == 0


async def test_a_due_job_whose_queue_is_not_a_list_goes_to_the_failed_list(r: Resque) -> None:
    r.get("SET", r.keys.queue("broken"), "no list")
    r.get("RPUSH", r.keys.delayed(1), *(f'{{"class":"note","queue":"broken","args":[{n}]}}' for n in range(3)))
    r.get("RPUSH", r.keys.delayed(2), '{"class":"note","queue":"q","args":[]}')
    r.get("ZADD", r.keys.schedule, 1, 1, 2, 2)
    assert await r.housekeeping().promote() == 4
    assert await r.housekeeping().set_aside() == 3
    assert len(r.waiting()) == 1, "and holds up no other"
    assert {record["error"] for record in r.failed()} == {"the key of the queue broken is not a list"}
    assert [wire.read_job(record["raw"]).args for record in r.failed()] == [[0], [1], [2]]


async def test_an_invalid_job_stays_in_its_queue_if_it_cannot_be_set_aside(r: Resque) -> None:
    for key, queue in ((r.keys.queue("q"), "q"), (r.keys.delayed(1), "delayed")):
        r.get("RPUSH", key, f"invalid in {queue}")
    r.get("ZADD", r.keys.schedule, 1, 1)
    r.get("SET", r.keys.unreadable, "no list")
    assert (await r.claims().take(await r.slots(), busy=False)).waits["q"] > 0, "to be asked again later"
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await r.housekeeping().promote()
    assert (r.waiting(), r.get("LRANGE", r.keys.delayed(1), 0, -1)) == (["invalid in q"], ["invalid in delayed"])
    r.get("DEL", r.keys.unreadable)
    r.get("SET", r.keys.failed, "no list")
    assert await r.housekeeping().promote() == 1
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await r.housekeeping().set_aside()
    assert r.get("LRANGE", r.keys.unreadable, 0, -1) == ["", "invalid in delayed"]


async def test_counters_of_the_wrong_type_lose_no_job(r: Resque, jobs: Jobs) -> None:
    for key in (r.keys.attempts, r.keys.crashes):
        r.get("SET", key, "no hash")
    await r.queue.enqueue("q", "note", [1])
    [claim] = (await r.claims().take(await r.slots(), busy=False)).claims
    assert (claim.failed, claim.crashes) == (0, 0)
    assert await r.claims().give_up(claim, "ValueError", "no", [])
    assert len(r.failed()) == 1


async def test_a_dead_worker_s_job_whose_queue_is_not_a_list_delays_no_other_job(r: Resque) -> None:
    for queue in ("broken", "q"):
        await r.queue.enqueue(queue, "note", [queue])
        await r.claims(queue).take(await r.slots(lease_seconds=0.02, queues=[queue]), busy=False)
    r.get("SET", r.keys.queue("broken"), "no list")
    housekeeping, reaped = r.housekeeping(), [0]

    async def both_are_reaped() -> bool:  # their leases end at different times
        reaped.append(await housekeeping.reap())
        return sum(reaped) == 2

    await until(both_are_reaped)
    assert len(r.waiting()) == 1
    [record] = r.failed()
    assert (record["payload"]["args"], record["exception"]) == (["broken"], "WorkerLost")


# After an outage of Redis longer than the lease, live workers must not be declared dead.


async def test_after_an_outage_of_redis_live_workers_renew_before_dead_ones_are_reaped(r: Resque) -> None:
    here = registration.Registration(r.scripts, r.connections.thread, r.keys, ["q"], 5.0, lambda: None)
    living, dead = await here.add(1), await r.slots()
    for number in range(2):
        await r.queue.enqueue("q", "note", [number])
    [claim] = (await r.claims().take(living, busy=False)).claims
    assert (await r.claims().take(dead, busy=False)).claims
    housekeeping = r.housekeeping(lease_seconds=1.0)
    assert await housekeeping.reap() == 0
    looked = int(r.get("HGET", r.keys.reaping, "looked"))
    r.get("HSET", r.keys.reaping, "looked", looked - 10_000)  # ten seconds without a call: all leases have ended
    r.get("ZADD", r.keys.leases, looked - 8000, living[0].id, looked - 8000, dead[0].id)
    assert await housekeeping.reap() == 0
    looked, first = r.get("HMGET", r.keys.reaping, "looked", "from")
    assert int(first) - int(looked) == 1000 // 3 + 250, "a third of the lease, and a try more"
    here._send_beats()
    await until(housekeeping.reap, "a moment later")
    assert [event.outcome for event in r.events("CleanedWorker")] == ["its job is back in q"]
    assert (len(r.waiting()), r.get("HLEN", r.keys.crashes)) == (1, 1)
    assert await r.claims().acknowledge(claim), "it is still ours"


async def test_without_an_outage_dead_workers_are_reaped_at_once(r: Resque) -> None:
    await r.slots()
    housekeeping = r.housekeeping(lease_seconds=0.1)
    assert await housekeeping.reap() == 0
    looked = int(r.get("HGET", r.keys.reaping, "looked"))
    r.get("HSET", r.keys.reaping, "looked", looked - 200)  # a delay by a busy event loop is not an outage
    r.get("ZADD", r.keys.leases, 1, r.get("ZRANGE", r.keys.leases, 0, 0)[0])
    assert await housekeeping.reap() == 1


async def test_an_outage_of_redis_longer_than_the_lease_is_not_a_crash(own: Resque, jobs: Jobs) -> None:
    for number in range(6):
        await own.queue.enqueue("q", "wait", [number])
    options: dict[str, Any] = {"definitions": jobs.definitions(), "lease_seconds": 1.9, "scaling": resque.Scaling(3, 3)}
    async with own.working(**options) as one, own.working(**options) as other:
        await until(lambda: one.busy == other.busy == 3)
        await until(lambda: own.get("HGET", own.keys.reaping, "looked"))
        with frozen(own.valkey.pid):  # each of them has waited two seconds for an answer
            await until(lambda: len([e for e in own.events("Erred") if e.what == "housekeeping"]) >= 2)

        def is_over() -> bool:
            looked, first = own.get("HMGET", own.keys.reaping, "looked", "from")
            return first is not None and int(looked) > int(first)

        await until(is_over, "dead workers are reaped again")
        jobs.gate.set()
        await until(lambda: len(own.events("Succeeded")) == 6)
    assert (len(jobs.done), own.events("CleanedWorker"), len(own.events("Started"))) == (6, [], 2)
    assert own.get("EXISTS", own.keys.crashes) == 0
