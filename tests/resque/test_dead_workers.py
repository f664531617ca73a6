"""Shutdown and death of a worker: its jobs are released or recovered, and only their owner settles them."""

import asyncio
from typing import Any, cast

import pytest

import resque
from asynckit.tasks import end_tasks
from lab.harness.proxy import Proxy, a_proxy
from resque import claiming, claims, registration, wire
from resque import failed as failed_module
from tests.support.failed import record
from tests.support.programs import until
from tests.support.resque import Definition, Jobs, Resque

# Shutdown and death of a worker.


async def test_on_shutdown_running_jobs_finish_and_no_new_job_starts(r: Resque, jobs: Jobs) -> None:
    await r.queue.enqueue("q", "wait", [1])
    async with r.working(definitions=jobs.definitions(), scaling=resque.Scaling(1, 1)) as worker:
        await until(lambda: worker.busy)
        await r.queue.enqueue("q", "wait", [2])
        asyncio.get_running_loop().call_later(0.05, jobs.gate.set)
    assert jobs.done == [(1,)]
    assert [wire.read_job(raw).args for raw in r.waiting()] == [[2]]


async def test_a_job_that_does_not_finish_in_time_is_released_to_the_head_of_its_queue(r: Resque, jobs: Jobs) -> None:
    async with r.working(definitions=jobs.definitions(), drain_seconds=0.05) as worker:
        await r.queue.enqueue("q", "wait", ["slow"])
        await until(lambda: worker.busy)
        await r.queue.pause("q", "so that the next one waits", 60)
        await r.queue.enqueue("q", "wait", ["next"])
    assert [wire.read_job(raw).args for raw in r.waiting()] == [["slow"], ["next"]]
    assert not any(key.startswith("worker") for key in r.all_keys())


async def test_the_jobs_of_a_dead_worker_are_recovered_when_its_lease_ends(r: Resque, jobs: Jobs) -> None:
    for number in range(3):
        await r.queue.enqueue("q", "note", [number])
    answer = await r.claims().take(await r.slots(2, lease_seconds=0.2), busy=False)
    assert [claim.job.args for claim in answer.claims] == [[0], [1]]
    async with r.working(definitions=jobs.definitions()):
        await until(lambda: len(jobs.done) == 3)
    assert {event.outcome for event in r.events("CleanedWorker")} == {"its job is back in q"}
    assert r.worker_keys() == []


async def test_a_cancelled_registration_leaves_no_keys(r: Resque) -> None:
    registered = asyncio.Event()

    async def scripts(name: str, *words: Any) -> Any:
        answer = await r.scripts(name, *words)
        if name == "register":
            registered.set()
            await asyncio.Event().wait()  # the answer has not arrived
        return answer

    cut_off = registration.Registration(cast(Any, scripts), r.connections.thread, r.keys, ("q",), 5.0, lambda: None)
    adding = asyncio.create_task(cut_off.add(2))
    await registered.wait()
    assert r.get("ZCARD", r.keys.leases) == 2
    await end_tasks([adding])
    await cut_off.remove(list(cut_off.slots.values()))
    assert r.worker_keys() == []


async def test_a_worker_whose_lease_has_ended_can_neither_claim_nor_settle(r: Resque) -> None:
    await r.queue.enqueue("q", "note", [1])
    slots, stale = await r.slots(lease_seconds=0.05), r.claims()
    [claim] = (await stale.take(slots, busy=False)).claims
    await until(r.housekeeping().reap)
    with pytest.raises(claims.LeaseLost):
        await stale.take(slots, busy=False)
    assert not await stale.acknowledge(claim)
    assert not await stale.retry(claim, 1)
    assert not await stale.give_up(claim, "ValueError", "no", [])
    assert not await stale.release(claim)
    assert (len(r.waiting()), r.failed(), await r.queue.delayed()) == (1, [], [])
    assert (await r.observer.totals())["late"] == 3


async def test_no_worker_settles_the_claim_of_another(r: Resque) -> None:
    await r.queue.enqueue("q", "note", [1])
    [claim] = (await r.claims().take(await r.slots(), busy=False)).claims
    claim.token, token = "another", claim.token
    assert not await r.claims().acknowledge(claim)
    claim.token = token
    assert await r.claims().acknowledge(claim)
    await r.claims().acknowledge(claim)
    assert (await r.observer.totals())["succeeded"] == 1, "and no job is settled twice"


async def test_a_job_that_kills_its_worker_goes_to_the_failed_list(r: Resque) -> None:
    await r.queue.enqueue("q", "note", [{}], "killer")
    housekeeping = r.housekeeping(crash_limit=3)
    for crashes in range(3):
        [claim] = (await r.claims().take(await r.slots(lease_seconds=0.02), busy=False)).claims
        assert claim.crashes == crashes
        await until(housekeeping.reap)
    [record] = r.failed()
    assert (record["exception"], record["error"]) == ("WorkerLost", "its worker died while it ran, 3 times")
    assert record["payload"]["args"] == [{"id": "killer"}]
    assert (r.waiting(), r.get("EXISTS", r.keys.crashes)) == ([], 0)


async def test_a_job_that_has_crashed_twice_runs_alone(r: Resque) -> None:
    for name in ("innocent", "suspect", "next"):
        await r.queue.enqueue("q", "note", [{}], name)
    r.get("HSET", r.keys.crashes, "suspect", 2)
    slots, reserve = await r.slots(3), r.claims()
    first = await reserve.take(slots, busy=False)
    assert [claim.job.id for claim in first.claims] == ["innocent"]
    assert first.waits["q"] < 0, "ask again when you are idle"
    assert (await reserve.take(slots[1:], busy=True)).claims == []
    await reserve.acknowledge(first.claims[0])
    second = await reserve.take(slots, busy=False)
    assert [claim.job.id for claim in second.claims] == ["suspect"]


@pytest.mark.parametrize("exception", [*sorted(failed_module.DEATHS), "Refused"])
async def test_a_job_whose_worker_died_is_retried_alone(r: Resque, exception: str) -> None:
    """Whether a worker of ours, of Ruby or of Node has died. A job without an id is recognized too."""
    payload = '{"class":"note","args":["suspect"]}'
    r.get("RPUSH", r.keys.failed, record(payload=payload, exception=exception))
    await r.queue.enqueue("q", "note", ["first"])
    assert await failed_module.FailedList(r.connections.commands, r.keys).requeue_all() == (1, 0)
    await r.queue.enqueue("q", "note", ["next"])
    slots, claims, found = await r.slots(3), r.claims(), []
    while answer := (await claims.take(slots, busy=False)).claims:
        found.append([claim.job.args[0] for claim in answer])
        for claim in answer:
            assert await claims.acknowledge(claim)
    assert found == ([["first", "suspect", "next"]] if exception == "Refused" else [["first"], ["suspect"], ["next"]])
    assert r.get("EXISTS", r.keys.crashes) == 0


async def test_jobs_that_have_crashed_are_still_run(r: Resque, jobs: Jobs) -> None:
    names = [f"job {number}" for number in range(20)]
    for name in names:
        await r.queue.enqueue("q", "note", [{}], name)
    r.get("HSET", r.keys.crashes, *[word for name in names[3:9] for word in (name, "2")])
    async with r.working(definitions=jobs.definitions(), scaling=resque.Scaling(5, 5)):
        await until(lambda: len(jobs.done) == 20)
    assert r.get("EXISTS", r.keys.crashes) == 0


async def test_a_repeated_claim_returns_the_same_jobs(r: Resque) -> None:
    for number in range(3):
        await r.queue.enqueue("q", "note", [number])
    slots, reserve = await r.slots(2), r.claims()
    lost = await reserve.take(slots, busy=False)
    again = await reserve.take(slots, busy=False)
    assert [(c.token, c.job.args) for c in again.claims] == [(c.token, c.job.args) for c in lost.claims]
    assert [wire.read_job(raw).args for raw in r.waiting()] == [[2]]


async def test_a_unique_job_that_fails_with_its_worker_frees_its_lock(r: Resque) -> None:
    definitions = {"note": Definition(print, unique=lambda job: job["kind"])}
    queue = r.new_queue(**definitions)
    assert await queue.enqueue("q", "note", [{"kind": "a"}])
    await r.claims().take(await r.slots(lease_seconds=0.02), busy=False)
    housekeeping = r.housekeeping(crash_limit=1, definitions=definitions)
    await until(housekeeping.reap)
    assert [record["exception"] for record in r.failed()] == ["WorkerLost"]
    assert await queue.enqueue("q", "note", [{"kind": "a"}]), "the next one of its kind may run"


async def test_a_lock_that_another_job_already_holds_stays(r: Resque) -> None:
    lock = r.keys.unique("digest")
    r.get("SET", lock, "another")
    assert await r.scripts("unlock", [lock], "mine") == 0
    assert r.get("GET", lock) == "another"


async def test_a_job_that_reappears_in_the_record_of_an_idle_slot_is_run_again(
    r: Resque, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a crash in which Redis lost its last second, and with it the acknowledgement of the job."""
    monkeypatch.setattr(claiming, "IDLE_ASK_SECONDS", 0.1)
    async with r.working(definitions=jobs.definitions(), scaling=resque.Scaling(1, 1)) as worker:
        await r.queue.enqueue("q", "wait", [1])
        await until(lambda: worker.busy)
        [state] = await r.observer.workers()
        record = r.get("GET", r.keys.worker(state.id))
        jobs.gate.set()
        await until(lambda: r.events("Succeeded") and r.events("Polled")[-1].jobs == 0)
        r.get("SET", r.keys.worker(state.id), record)
        await until(lambda: len(r.events("Succeeded")) == 2)
    assert jobs.done == [(1,), (1,)]
    assert not any(key.startswith("worker") for key in r.all_keys())


@pytest.mark.parametrize("name", ["claim", "acknowledge"])
async def test_a_connection_cut_before_the_answer_loses_and_duplicates_no_job(r: Resque, jobs: Jobs, name: str) -> None:
    """The proxy forwards the script and closes the connection instead of forwarding the answer."""
    async with a_proxy(r.valkey.port) as proxy, resque.open_connections(proxy.url) as connections:
        cut: Proxy = proxy
        async with r.working(definitions=jobs.definitions(), connections=connections) as worker:
            await r.scripts._load()  # otherwise the cut call might be of a script that is not loaded
            cut.at(worker._claims._scripts._scripts[name].sha)
            for number in range(20):
                await r.queue.enqueue("q", "note", [number])
            await until(lambda: len(jobs.done) >= 20 and not worker.busy)
            assert cut.times == 1
    assert sorted(jobs.done) == [(number,) for number in range(20)]
    assert (r.waiting(), r.failed()) == ([], [])


async def test_a_worker_that_another_program_removed_registers_under_a_new_name(r: Resque, jobs: Jobs) -> None:
    async with r.working(definitions=jobs.definitions(), lease_seconds=0.3) as worker:
        [before] = await until(r.observer.workers)
        await r.queue.enqueue("q", "wait", [1])
        await until(lambda: worker.busy)
        r.get("SREM", r.keys.workers, before.id)  # as Node's forceClean does
        await until(lambda: len(r.events("Started")) == 2)
        await r.queue.enqueue("q", "note", [2])
        await until(lambda: jobs.done == [(2,)])
        assert before.id not in {after.id for after in await r.observer.workers()}
        jobs.gate.set()


async def test_a_process_never_uses_a_name_twice(r: Resque, jobs: Jobs) -> None:
    names = set()
    for _ in range(3):
        async with r.working(definitions=jobs.definitions()) as worker:
            names.add(worker._registration.host)
    assert len(names) == 3


async def test_a_key_of_the_wrong_type_affects_no_other_key(r: Resque, jobs: Jobs) -> None:
    r.get("SET", r.keys.queue("broken"), "no list")
    r.get("ZADD", r.keys.schedule, 1, "1", 2, "2")
    r.get("SET", r.keys.delayed(1), "no list")
    r.get("RPUSH", r.keys.delayed(2), '{"class":"note","queue":"q","args":[2]}', "invalid")
    async with r.working(["broken", "q"], definitions=jobs.definitions()):
        await until(lambda: jobs.done == [(2,)])
        await until(lambda: r.failed())
        assert [await r.queue.length(name) for name in ("broken", "q")] == [None, 0]


async def test_the_heartbeat_renews_the_lease_through_a_connection_that_is_always_slow(r: Resque, jobs: Jobs) -> None:
    """Each answer comes later than the heartbeat's first limit, a sixth of the lease. The other calls have 2 s."""
    async with a_proxy(r.valkey.port) as proxy, resque.open_connections(proxy.url) as connections:
        proxy.delay(0.4, requests=False)
        async with r.working(definitions=jobs.definitions(), connections=connections, lease_seconds=2.0) as worker:
            slot, *_ = worker._registration.slots.values()
            before = r.get("ZSCORE", r.keys.leases, slot.id)
            await until(lambda: (r.get("ZSCORE", r.keys.leases, slot.id) or 0) > before, "a heartbeat", 8)
