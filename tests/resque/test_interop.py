"""Strategy 5 together with the real node-resque on one Redis: each side may enqueue, work, lead, and clean up.

Skipped where there is no node, or node-resque cannot be fetched from npm.
"""

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

import pytest
from pydantic import SecretStr

import resque
from asynckit.ids import new_id
from common.mail.emails import email_from_members
from common.mail.mailer import Mailer
from common.processes.chapter import chapter_module
from common.settings import Settings
from resque import dates, wire
from resque.failed import FailedList
from tests.support.node_peer import NodeError, NodeResque, running_node_resque, why_not
from tests.support.programs import LIMIT, Inbox, Program, Valkey, a_name, until
from tests.support.resque import Resque
from tests.support.resque_worker import Jobs

email_jobs: Any = chapter_module("5_remote_queue.jobs")

NASTY = 'a "quote", a back\\slash, a /slash/, </script>, \u2028, \x00\x1f\x7f, 😀 and é'


@pytest.fixture(scope="module")
def peer(valkey: Valkey) -> Iterator[NodeResque]:
    if reason := why_not():
        pytest.skip(f"without node-resque: {reason}")
    with running_node_resque(valkey.port) as peer:
        yield peer


class Shared(Resque):
    """A namespace that both sides use."""

    peer: NodeResque

    @property
    def client(self) -> Any:
        return self.valkey.client

    async def node(self, kind: str, method: str, *args: Any, **options: Any) -> Any:
        return await self.peer(self.namespace, kind, method, *args, **options)

    async def node_worker(self, name: str = "node:1+1") -> None:
        await self.node("worker", "start", name=name, queues=["q"], timeout=10)

    def our_worker(self, **options: Any) -> AbstractAsyncContextManager[Any]:
        return self.working(definitions=Jobs(self.connections.commands, self.namespace).definitions, **options)

    def texts(self, name: str) -> list[str]:
        """The elements of `failed`, `notes` or `queue:q`."""
        found: list[str] = self.client.lrange(self.keys.key(name), 0, -1)
        return found

    def notes(self) -> list[tuple[str, list[Any]]]:
        """Which side ran which job."""
        return [(note["by"], note["args"]) for note in map(json.loads, self.texts("notes"))]


@pytest.fixture
async def shared(valkey: Valkey, peer: NodeResque) -> AsyncIterator[Shared]:
    async with resque.open_connections(valkey.url) as connections:
        shared = Shared(valkey, connections)
        shared.peer = peer
        yield shared
        await shared.node("peer", "endAll")
        assert await shared.node("peer", "errors") == [], "node-resque reported an error"


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


# Jobs


def an_email() -> dict[str, str]:
    return {"to": f"{a_name()}@example.com", "subject": "Grüße", "text": "How are you?", "id": new_id("example.com")}


async def test_an_email_that_node_enqueues_is_sent_by_our_worker(shared: Shared, inbox: Inbox) -> None:
    email = an_email()
    settings = Settings(smtp_url=SecretStr(inbox.smtp_url), redis_url=SecretStr(shared.valkey.url))
    async with Mailer(settings, patient=True) as mailer:
        send_email = email_jobs.SendEmail(settings, mailer, shared.queue)
        definitions = email_jobs.definitions(send_email, settings)
        async with shared.working(queues=["emailQueue"], definitions=definitions):
            assert await shared.node("queue", "enqueue", "emailQueue", "sendEmail", [email])
            await until(lambda: shared.events("Succeeded"), "the email is sent")
        await send_email.close()
    [message] = inbox.messages(email["to"])
    assert (message["message_id"], message["subject"]) == (email["id"], email["subject"])


async def test_an_email_that_our_server_enqueues_reaches_node_s_worker(shared: Shared) -> None:
    email = an_email()
    server = email_jobs.Jobs(shared.connections.commands)
    server.queue = shared.queue
    await server.enqueue(email_from_members(email, "example.com"))
    await shared.node("worker", "start", name="node:1", queues=["emailQueue"], timeout=10)
    await until(shared.notes, "node has done it")
    assert shared.notes() == [("node", [email])]


async def test_jobs_go_both_ways_unchanged(shared: Shared) -> None:
    args: list[Any] = [{"id": "1", "10": 1, "9": 2, "text": NASTY}, [], {}, None, True, 0.1, 1e21, -5, "x"]
    await shared.queue.enqueue("q", "note", args)
    await shared.node_worker()
    await until(shared.notes, "node has done it")
    await shared.node("worker", "end")
    async with shared.our_worker():
        await shared.node("queue", "enqueue", "q", "note", args)
        await until(lambda: len(shared.notes()) == 2, "ours has done it")
    assert shared.notes() == [("node", args), ("python", args)]


async def test_node_deletes_our_jobs_and_our_delayed_jobs_by_their_value(shared: Shared) -> None:
    args = [{"text": NASTY, "number": 1.0, "id": "7"}]
    moment = int(time.time()) + 1000
    await shared.queue.enqueue("q", "note", args)
    await shared.queue.enqueue_at(moment, "q", "note", [args[0] | {"id": "8"}])
    assert await shared.node("queue", "queued", "q", 0, -1) == [{"class": "note", "queue": "q", "args": args}]
    assert await shared.node("queue", "del", "q", "note", args) == 1
    assert await shared.node("queue", "scheduledAt", "q", "note", [args[0] | {"id": "8"}]) == [moment]
    assert await shared.node("queue", "delDelayed", "q", "note", [args[0] | {"id": "8"}]) == [moment]
    assert await shared.queue.length("q") == 0
    assert await shared.queue.delayed() == []


async def test_we_cancel_jobs_that_node_has_enqueued_or_delayed(shared: Shared) -> None:
    moment = int(time.time()) + 1000
    await shared.node("queue", "enqueue", "q", "note", [{"id": "a"}])
    await shared.node("queue", "enqueueAt", moment * 1000, "q", "note", [{"id": "b"}])
    [(second, job)] = await shared.queue.delayed()
    assert (second, job.id, job.queue) == (moment, "b", "q")
    assert await shared.queue.cancel("a")
    assert await shared.queue.cancel("b")
    assert await shared.node("queue", "length", "q") == 0
    assert await shared.node("queue", "scheduledAt", "q", "note", [{"id": "b"}]) == []


async def test_two_multi_workers_of_each_language_run_each_job_once(shared: Shared) -> None:
    numbers = list(range(600))
    for number in numbers[::2]:
        await shared.queue.enqueue("q", "nap", [number])
    await asyncio.gather(*(shared.node("queue", "enqueue", "q", "nap", [number]) for number in numbers[1::2]))
    options = {"queues": ["q"], "timeout": 10, "checkTimeout": 10, "minTaskProcessors": 5, "maxEventLoopDelay": 1000}
    await shared.node("multiWorker", "start", **options)
    await until(shared.notes, "node has begun")
    async with shared.our_worker(scaling=resque.Scaling(5, 5)):
        await until(lambda: len(shared.notes()) >= len(numbers), "all are done")
    await shared.node("multiWorker", "end")
    notes = shared.notes()
    assert sorted(args[0] for _, args in notes) == numbers
    assert {by for by, _ in notes} == {"node", "python"}, "both ran some of the jobs"
    assert int(shared.client.get(shared.keys.processed())) == len(numbers)
    assert (
        shared.client.exists(shared.keys.queue("q"), shared.keys.failed, shared.keys.workers, shared.keys.leases) == 0
    )


# Delayed jobs


@pytest.mark.parametrize("leader", ["node", "ours"])
async def test_delayed_jobs_go_both_ways_whichever_program_leads(shared: Shared, leader: str) -> None:
    housekeeping, moment = shared.housekeeping(), int(time.time()) + 3  # late enough that all jobs are still delayed
    await shared.queue.enqueue_at(moment, "q", "note", ["ours"])
    await shared.queue.enqueue_at(moment, "q", "note", ["ours"])
    with pytest.raises(NodeError, match="already enqueued at this time"):
        await shared.node("queue", "enqueueAt", moment * 1000, "q", "note", ["ours"])
    await shared.node("queue", "enqueueAt", moment * 1000, "q", "note", ["node's", {"b": 1, "a": []}])
    delayed = shared.texts(f"delayed:{moment}")
    options = {"name": "node:1", "timeout": 10}
    if leader == "ours":
        await housekeeping.promote()
    await shared.node("scheduler", "poll", **options)
    assert await shared.node("scheduler", "leader") == (leader == "node")
    assert await shared.node("queue", "leader") == ("node:1" if leader == "node" else "six-ways")

    async def promoted() -> bool:
        await shared.node("scheduler", "poll")
        assert not await housekeeping.promote() or leader == "ours"
        assert housekeeping.leader == ("node:1" if leader == "node" else "six-ways")
        return len(shared.texts("queue:q")) == 3

    await until(promoted, "the second has come")
    assert shared.texts("queue:q") == delayed
    assert shared.client.keys(f"{shared.namespace}:timestamps:*") == []
    assert shared.client.exists(shared.keys.delayed(moment), shared.keys.schedule) == 0


async def test_a_leader_that_stops_hands_over_to_the_other(shared: Shared) -> None:
    housekeeping, options = shared.housekeeping(), {"name": "node:1", "timeout": 10}
    await shared.node("scheduler", "poll", **options)
    await housekeeping.promote()
    assert housekeeping.leader == "node:1"
    await shared.node("scheduler", "end")
    await housekeeping.promote()
    assert housekeeping.leader == "six-ways"
    await shared.node("scheduler", "poll", **options)
    assert not await shared.node("scheduler", "leader")
    assert await housekeeping.resign()
    await shared.node("scheduler", "poll")
    assert await shared.node("scheduler", "leader")


@pytest.mark.parametrize("leader", ["node", "ours"])
async def test_a_job_in_ruby_s_format_has_as_many_attempts_as_any_other(shared: Shared, leader: str) -> None:
    """Ruby omits the queue, but a delayed job without one would be lost."""
    shared.client.sadd(shared.keys.queues, "q")
    shared.client.rpush(shared.keys.queue("q"), '{"class":"flaky","args":[12345678901234567,1.0,[]]}')

    async def given_up() -> bool:
        if leader == "node":
            await shared.node("scheduler", "poll", name="node:1", timeout=10)
        return bool(shared.events("Failed"))

    await given_up()
    async with shared.our_worker():
        await until(given_up, "it is in the failed list")
    # Node's scheduler rounds the numbers, which makes it a different job, so its attempts start again once.
    assert shared.notes() == [("python", ["flaky"])] * (3 if leader == "node" else 2)
    [failed] = shared.texts("failed")
    payload = '{"class":"flaky","args":[12345678901234567,1.0,[]],"queue":"q"}'
    assert (payload in failed) == (leader == "ours"), "Node's scheduler rounds numbers, ours does not"
    if leader == "ours":
        assert shared.client.exists(shared.keys.attempts) == 0


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
        program.process.send_signal(signal.SIGSTOP)

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
