"""Strategy 5 together with Ruby, in the format and with the class names of resque. Skipped without `ruby`."""

import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from asynckit.ids import new_id
from common.mail.emails import email_from_members
from common.mail.mailer import Mailer
from common.processes.chapter import chapter_module
from common.settings import Settings
from resque import failed as failed_module
from resque import observe
from tests.support.programs import LIMIT, ROOT, someone, until
from tests.support.resque import Resque, a_resque
from tests.support.servers import Inbox, Valkey

email_jobs: Any = chapter_module("5_remote_queue.jobs")

pytestmark = pytest.mark.skipif(shutil.which("ruby") is None, reason="ruby is not installed")


@pytest.fixture
async def r(own_valkey: Valkey) -> AsyncIterator[Resque]:
    async with a_resque(own_valkey) as resque:
        resque.namespace = "resque"
        resque.keys = type(resque.keys)()
        resque.queue = resque.new_queue()
        resque.observer = observe.Observer(resque.connections.commands, resque.keys)
        yield resque


@pytest.fixture
def own_valkey(valkey: Valkey) -> Iterator[Valkey]:
    """Ruby's program uses only the default namespace."""
    valkey.client.flushdb()
    yield valkey
    valkey.client.flushdb()


def ruby(r: Resque, what: str, text: str = "") -> str:
    command = ["ruby", str(ROOT / "tests" / "support" / "interop" / "resque.rb"), str(r.valkey.port), what]
    return subprocess.run(command, input=text, text=True, capture_output=True, check=True, timeout=LIMIT).stdout


def an_email() -> dict[str, str]:
    return {"to": someone(), "subject": "Grüße", "text": "Hi", "id": new_id("example.com")}


async def test_an_email_that_ruby_enqueues_is_sent_by_our_worker(r: Resque, inbox: Inbox) -> None:
    email = an_email()
    settings = Settings(smtp_url=SecretStr(inbox.smtp_url), redis_url=SecretStr(r.valkey.url))
    async with Mailer(settings, patient=True) as mailer:
        send_email = email_jobs.SendEmail(settings, mailer, r.queue)
        async with r.working(queues=["emailQueue"], definitions=email_jobs.definitions(send_email, settings)):
            ruby(r, "enqueue", json.dumps([email]))
            await until(lambda: r.events("Succeeded"), "the email is sent")
        await send_email.close()
    [message] = inbox.messages(email["to"])
    assert (message["message_id"], message["subject"]) == (email["id"], email["subject"])


async def test_a_ruby_worker_runs_our_jobs_if_they_have_ruby_s_class(r: Resque) -> None:
    email = an_email()
    server = email_jobs.Jobs(r.connections.commands, "SendEmail")
    server.queue = r.queue
    await server.enqueue(email_from_members(email, "example.com"))
    assert ruby(r, "work") == f"to {email['to']}: Grüße\n"


async def test_ruby_retries_all_and_we_send_no_email_twice(r: Resque) -> None:
    r.get("RPUSH", r.keys.queue("emailQueue"), "invalid")
    job = '{"class":"nosuch","queue":"emailQueue","args":["x"]}'
    r.get("RPUSH", r.keys.queue("emailQueue"), job)
    async with r.working(queues=["emailQueue"], definitions={}):
        await until(lambda: len(r.events("Failed")) == 2, "both have failed")
    ruby(r, "retry-all")
    assert sorted(map(str, r.waiting("emailQueue"))) == [
        '{"class":"Unreadable","args":[]}',
        '{"class":"nosuch","args":["x"]}',
    ]
    failed = failed_module.FailedList(r.connections.commands, r.keys)
    assert [failure.retried for failure in await failed.list() if failure.job] == [True]
    assert await failed.requeue_all() == (0, 2)
    assert len(r.waiting("emailQueue")) == 2
    for failure in await failed.list():
        await failed.remove(failure.id)
    assert await failed.count() == 0


async def test_ruby_moves_the_job_of_a_worker_of_ours_that_is_dead_for_long_to_the_failed_list(r: Resque) -> None:
    job = '{"class":"note","queue":"q","args":[1]}'
    r.get("RPUSH", r.keys.queue("q"), job)
    [slot] = await r.slots(lease_seconds=0.02)
    assert (await r.claims().take([slot], busy=False)).claims
    [worker] = r.get("SMEMBERS", r.keys.workers)
    ruby(r, "prune")
    assert r.failed() == [], "it is not dead for long"
    r.get(
        "HSET",
        r.keys.heartbeats,
        worker,
        (datetime.now(UTC) - timedelta(minutes=6)).strftime("%Y-%m-%dT%H:%M:%S+00:00"),
    )
    ruby(r, "prune")
    await until(r.housekeeping().reap)
    assert [(failed["worker"], failed["exception"]) for failed in r.failed()] == [
        (worker, "Resque::PruneDeadWorkerDirtyExit")
    ]
    assert r.waiting() == [], "it is not in the queue as well"
    assert await failed_module.FailedList(r.connections.commands, r.keys).requeue_all() == (1, 0)
    assert r.waiting() == [job]
    assert await r.observer.in_flight() == 0


async def test_a_dead_worker_of_ruby_is_removed_and_its_job_fails(r: Resque) -> None:
    dead, alive, job = "ruby:1:q", "ruby:2:q", '{"class":"note","args":[1]}'
    now = datetime.now(UTC)
    for worker, beat in ((dead, now - timedelta(hours=2)), (alive, now)):
        r.get("SADD", r.keys.workers, worker)
        r.get("HSET", r.keys.heartbeats, worker, beat.strftime("%Y-%m-%dT%H:%M:%S+00:00"))
        r.get("SET", r.keys.worker(worker), f'{{"queue":"q","run_at":"2026-11-21T07:39:33Z","payload":{job}}}')
    assert await r.housekeeping().clean_other_programs() == 1
    assert await r.housekeeping().clean_other_programs() == 0
    assert r.get("SMEMBERS", r.keys.workers) == {alive}
    assert r.get("HKEYS", r.keys.heartbeats) == [alive]
    assert await r.observer.in_flight() == 1
    [failed] = r.failed()
    assert (failed["worker"], failed["queue"], failed["payload"]["args"]) == (dead, "q", [1])


async def test_failures_in_the_lists_of_ruby_s_multi_queue_are_counted(r: Resque) -> None:
    r.get("SADD", r.keys.key("failed_queues"), "emailQueue_failed", "none_failed", "odd")
    r.get("RPUSH", r.keys.key("emailQueue_failed"), "{}", "{}")
    r.get("SET", r.keys.key("odd"), "no list")
    assert await failed_module.FailedList(r.connections.commands, r.keys).elsewhere() == {"emailQueue_failed": 2}
