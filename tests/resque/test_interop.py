"""Strategy 5 together with the real node-resque on one Redis: each side may enqueue, work, lead, and clean up.

Skipped where there is no node, or node-resque cannot be fetched from npm.
"""

import asyncio
import time
from typing import Any

import pytest
from pydantic import SecretStr

import resque
from asynckit.ids import new_id
from common.mail.emails import email_from_members
from common.mail.mailer import Mailer
from common.processes.chapter import chapter_module
from common.settings import Settings
from tests.support.node_peer import NodeError
from tests.support.programs import someone, until
from tests.support.resque import NASTY
from tests.support.servers import Inbox
from tests.support.shared_redis import Shared

email_jobs: Any = chapter_module("5_remote_queue.jobs")

# Jobs


def an_email() -> dict[str, str]:
    return {"to": someone(), "subject": "Grüße", "text": "How are you?", "id": new_id("example.com")}


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
