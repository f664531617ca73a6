"""Strategy 5 and the real node-resque: the failed list, workers, and what each side cleans up.

Skipped where there is no node, or node-resque cannot be fetched from npm.
"""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import resque
from resque import dates, wire
from resque.failed import FailedList
from tests.support.node_peer import running_node_resque
from tests.support.programs import LIMIT, Program, freeze, until
from tests.support.resque import NASTY
from tests.support.servers import Valkey
from tests.support.shared_redis import Shared


@contextmanager
def a_worker(shared: Shared, lease_seconds: float) -> Iterator[Program]:
    """One of our workers in its own process."""
    command = [
        sys.executable,
        "-m",
        "tests.support.resque_worker",
        shared.valkey.url,
        shared.namespace,
        str(lease_seconds),
    ]
    program = Program(command, {})
    try:
        yield program
    finally:
        program.process.kill()
        program.stop()


# The failed list


def failed_list_of(shared: Shared) -> Any:
    return FailedList(shared.connections.commands, shared.keys)


async def test_node_reads_removes_and_retries_our_failed_jobs(shared: Shared) -> None:
    async with shared.our_worker():
        for number in range(2):
            await shared.queue.enqueue("q", "fail", [f"{number}: {NASTY}"])
            await until(lambda: len(shared.events("Failed")) == number + 1, "it failed")  # noqa: B023  waited for at once
    first, second = await shared.node("queue", "failed", 0, -1)
    assert first["error"] == f"0: {NASTY}"
    assert first["payload"] == {"class": "fail", "queue": "q", "args": [f"0: {NASTY}"]}
    assert await shared.node("queue", "removeFailed", first) == 1
    assert await shared.node("queue", "retryAndRemoveFailed", second)
    assert await shared.node("queue", "failedCount") == 0
    [job] = await shared.queue.peek("q")
    assert job.args == [f"1: {NASTY}"]


async def test_we_read_and_retry_the_failed_jobs_of_node(shared: Shared) -> None:
    failed_list = failed_list_of(shared)
    await shared.node_worker()
    await shared.node("queue", "enqueue", "q", "fail", [NASTY])
    await until(lambda: shared.texts("failed"), "it failed")
    [failure] = await failed_list.list()
    assert (failure.exception, failure.error, failure.worker, failure.queue) == ("TypeError", NASTY, "node:1+1", "q")
    assert abs(failure.failed_at - time.time()) < LIMIT
    await shared.node("worker", "end")
    await failed_list.requeue(failure.id)
    assert shared.texts("failed") == []
    assert shared.texts("queue:q") == [failure.job.raw]


async def test_node_removes_the_records_that_our_reaper_and_cleaner_write(shared: Shared) -> None:
    keys = shared.keys
    raw = wire.make_job("a/b", "note", [{"text": NASTY, "id": "1"}]).raw
    for member in (keys.leases, keys.workers):
        shared.client.zadd(member, {"dead:1+1:a/b": 1}) if member == keys.leases else shared.client.sadd(
            member, "dead:1+1:a/b", "node:2+1:a/b"
        )
    shared.client.set(
        keys.worker("dead:1+1:a/b"),
        f'{{"token":"t","queue":"a\\/b","run_at":"2026-11-21T07:39:33Z","worker":"dead:1+1","payload":{raw}}}',
    )
    shared.client.set(keys.ping("node:2+1"), '{"time":1,"name":"node:2+1","queues":"a/b"}')
    shared.client.set(
        keys.worker("node:2+1:a/b"),
        '{"queue":"a\\/b","worker":"node:2+1","payload":{"queue":"a\\/b","args":{},"class":"note"},"run_at":"x"}',
    )
    housekeeping = shared.housekeeping(crash_limit=1, stuck_seconds=1)
    assert (await housekeeping.reap(), await housekeeping.clean_other_programs()) == (1, 1)
    lost, stuck = await shared.node("queue", "failed", 0, -1)
    assert (lost["exception"], lost["queue"], lost["worker"]) == ("WorkerLost", "a/b", "dead:1+1:a/b")
    assert stuck["payload"]["args"] == [], "an empty list, which Node's script had turned into an object"
    assert await shared.node("queue", "removeFailed", lost) == 1
    await shared.node("queue", "retryStuckJobs")
    assert shared.texts("failed") == []
    assert await shared.node("queue", "queued", "a/b", 0, -1) == [{"class": "note", "queue": "a/b", "args": []}]


# Workers


async def test_each_side_sees_the_workers_and_jobs_of_the_other(shared: Shared) -> None:
    await shared.node_worker()
    await shared.node("queue", "enqueue", "q", "hold", [])
    await until(shared.notes, "node works")
    async with shared.our_worker(scaling=resque.Scaling(1, 1)):
        await shared.queue.enqueue("q", "hold", [{"id": "7"}])
        await until(lambda: len(shared.notes()) == 2, "ours works")
        [name] = [event.worker for event in shared.events("Started")]
        assert await shared.node("queue", "workers") == {name: "q", "node:1+1": "q"}
        working_on = await shared.node("queue", "allWorkingOn")
        assert working_on[name]["payload"] == {"class": "hold", "queue": "q", "args": [{"id": "7"}]}
        assert abs((dates.moment_of(working_on[name]["run_at"]) or 0) - time.time()) < LIMIT
        ours: Any
        theirs: Any
        ours, theirs = sorted(await shared.observer.workers(), key=lambda state: not state.ours)
        assert (theirs.id, theirs.queues, theirs.ours) == ("node:1+1:q", "q", False)
        assert (theirs.job.name, theirs.job.args) == ("hold", [])
        for state in (ours, theirs):
            assert state.alive
            assert 0 <= state.working_seconds < LIMIT
            assert abs((dates.moment_of(state.started) or 0) - time.time()) < LIMIT
        assert await shared.observer.in_flight() == 2
        shared.client.set(shared.keys.key("release"), "1")
        await until(lambda: shared.events("Succeeded"), "ours is done")
    assert await shared.node("queue", "workers") == {"node:1+1": "q"}
    assert [key for key in shared.client.keys(f"{shared.namespace}:*") if name in key] == []
    assert shared.client.hgetall(shared.keys.heartbeats) == {}


async def test_the_job_of_our_killed_worker_is_put_back_unchanged(shared: Shared) -> None:
    raws = [
        '{"class":"hold","args":[]}',
        '{"class":"hold","args":[12345678901234567]}',
        '{"args":[1.0,{}],"class":"hold"}',
    ]
    shared.client.rpush(shared.keys.queue("q"), *raws)
    with a_worker(shared, lease_seconds=5) as program:
        await until(lambda: len(shared.notes()) == 3, "it works")
        for state in await shared.observer.workers():
            assert state.job is None or state.job.name == "hold"
        program.process.kill()
    for slot in shared.client.zrange(shared.keys.leases, 0, -1):
        shared.client.zadd(shared.keys.leases, {slot: 1})  # as if the lease had ended
    housekeeping = shared.housekeeping()
    await until(housekeeping.reap, "its lease has ended")
    assert sorted(shared.texts("queue:q")) == sorted(raws)
    assert await shared.node("queue", "workers") == {}
    [cleaned] = [event for event in shared.events("CleanedWorker") if "no job" not in event.outcome][:1]
    assert cleaned.outcome == "its job is back in q"


async def test_our_suspended_worker_settles_nothing_after_node_has_cleaned_it(
    shared: Shared,
) -> None:
    options = {"name": "node:1", "timeout": 10, "stuckWorkerTimeout": 400}  # in whole seconds: at once
    await shared.node("scheduler", "poll", **options)
    with a_worker(shared, lease_seconds=1.5) as program:
        await shared.queue.enqueue("q", "hold", [{"id": "7"}])
        await until(shared.notes, "it works")
        freeze(program.process.pid)

        async def cleaned() -> bool:
            await shared.node("scheduler", "poll")
            return not await shared.node("queue", "workers")

        def no_worker_is_missing() -> bool:
            alive: list[str] = shared.client.zrange(shared.keys.leases, 0, -1)
            return bool(set(alive) == shared.client.smembers(shared.keys.workers))

        def noted() -> list[Any]:
            return sorted(args for _, args in shared.notes() if args[0] not in ("holding", "released"))

        def processed() -> int:
            return int(shared.client.get(shared.keys.processed()) or 0)

        await until(cleaned, "Node has removed it as dead")
        [failed] = await shared.node("queue", "failed", 0, -1)
        assert failed["payload"] == {"class": "hold", "queue": "q", "args": [{"id": "7"}]}
        for number in range(6):
            await shared.queue.enqueue("q", "note", [number])
        shared.client.set(shared.keys.key("release"), "1")
        program.process.send_signal(signal.SIGCONT)
        await until(lambda: noted() == [[number] for number in range(6)], "it works again, under a new name")
        await until(no_worker_is_missing, "what it was before is forgotten")
        await until(lambda: processed() == 6, "all six are acknowledged")
        assert noted() == [[number] for number in range(6)]
        assert await shared.node("queue", "failed", 0, -1) == [failed], "filed once, by node"
        assert await shared.node("queue", "retryAndRemoveFailed", failed)
        await until(lambda: processed() == 7, "the retried job has run")
    assert shared.texts("queue:q") == shared.texts("failed") == []


@pytest.mark.parametrize("leader", ["node", "ours"])
async def test_a_killed_worker_of_node_is_cleaned_once_whichever_program_leads(
    shared: Shared, valkey: Valkey, leader: str
) -> None:
    housekeeping = shared.housekeeping(stuck_seconds=0.5)
    options = {"name": "node:1", "timeout": 10, "stuckWorkerTimeout": 400}  # in whole seconds: at once
    if leader == "node":
        await shared.node("scheduler", "poll", **options)
    with running_node_resque(valkey.port) as doomed:
        await doomed(shared.namespace, "worker", "start", name="doomed:1", queues=["q"], timeout=1000)
        await shared.node("queue", "enqueue", "q", "hold", [])
        await until(shared.notes, "it works")
        doomed.process.kill()

    async def cleaned() -> bool:
        await housekeeping.promote()
        by_us = await housekeeping.clean_other_programs()
        assert not by_us or leader == "ours"
        await shared.node("scheduler", "poll", **options)
        return bool(shared.texts("failed"))

    await until(cleaned, "it was removed as dead")
    await cleaned()
    assert await housekeeping.clean_other_programs() == 0
    [failed] = await shared.node("queue", "failed", 0, -1)
    assert (failed["queue"], failed["payload"]["class"]) == ("q", "hold")
    assert failed["payload"]["args"] == ({} if leader == "node" else []), (
        "Node's script has forgotten that it was a list"
    )
    assert await shared.node("queue", "workers") == {}
    await shared.node("queue", "retryStuckJobs")
    assert shared.texts("failed") == []
    shared.client.set(shared.keys.key("release"), "1")
    async with shared.our_worker():
        await until(lambda: len(shared.notes()) == 3, "ours does it again")
    assert [by for by, _ in shared.notes()] == ["node", "python", "python"]
    left = [key for key in shared.client.keys(f"{shared.namespace}:*") if "doomed" in key]
    assert left == ([f"{shared.namespace}:worker:doomed:1:q"] if leader == "node" else [])


async def test_node_sees_the_leader_and_the_statistics(shared: Shared) -> None:
    async with shared.our_worker():
        await shared.queue.enqueue("q", "note", [])
        await shared.queue.enqueue("q", "fail", ["no"])
        await until(lambda: shared.events("Failed") and shared.events("Succeeded"), "both are done")
        assert await shared.node("queue", "leader") == "six-ways"
        stats = await shared.node("queue", "stats")
    assert (stats["processed"], stats["failed"]) == ("2", "1"), "in all, as Ruby counts"
    assert await shared.node("queue", "leader") is None, "our last worker has released the lock"
