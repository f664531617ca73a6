"""Strategy 5 in the words of its chapter."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.load import Load, account
from tests.support.programs import Program, Strategy, frozen, someone, wait_until
from tests.support.remote_queue import CLIENTS, FAILED, KILLS, QUEUE, a_process, a_worker, failed, queue, settled
from tests.support.servers import Inbox, Valkey


@pytest.fixture(scope="module")
def running(inbox: Inbox, another: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strategy]:
    with queue(inbox, another, tmp_path_factory.mktemp("running"), ATTEMPTS="5") as strategy:
        yield strategy
    assert "Traceback" not in strategy.program.output


def test_an_email_waits_in_redis_until_a_worker_comes(inbox: Inbox, clean: Valkey, tmp_path: Path) -> None:
    """What strategy 4 answers with a 503."""
    to = someone()
    with queue(inbox, clean, tmp_path, ROLE="server") as strategy:
        answer = strategy.send(to)
        assert (answer.status, answer.json["status"]) == (202, "accepted")
        [raw] = clean.client.lrange(QUEUE, 0, -1)
        arguments = {"to": to, "subject": "Hello", "text": "How are you?", "id": answer.json["id"]}
        assert json.loads(str(raw)) == {"class": "sendEmail", "queue": "emailQueue", "args": [arguments]}
        stats = strategy.stats()
        assert (stats["waiting"], stats["in_flight"], stats["sent"], stats["workers"]) == (1, 0, 0, 0)
        assert stats["oldest_wait_seconds"] > 0
        with a_worker(inbox, clean, tmp_path):
            [message] = inbox.wait_for(to)
            assert message["message_id"] == answer.json["id"]
            wait_until(lambda: settled(strategy), "it is acknowledged")
            assert (strategy.stats()["sent"], strategy.stats()["workers"]) == (1, 1)


def test_two_workers_send_each_email_once(inbox: Inbox, clean: Valkey, tmp_path: Path) -> None:
    """What strategy 4 sends twice."""
    to = someone()
    with queue(inbox, clean, tmp_path, WORKERS="2") as strategy:
        wait_until(lambda: strategy.stats()["workers"] == 2, "two workers")
        assert [strategy.send(to).status for _ in range(40)] == [202] * 40
        wait_until(lambda: settled(strategy), "all are sent")
    assert [message["copies"] for message in inbox.messages(to)] == [1] * 40


def test_a_killed_server_loses_nothing(running: Strategy, inbox: Inbox) -> None:
    with Load(running, someone(), CLIENTS) as load:
        for _ in range(KILLS):
            load.wait_for_more(10)
            running.kill("server")
            wait_until(running.healthy, "the server is back")
    wait_until(lambda: settled(running), "all are sent")
    found = account(load, inbox)
    assert (found.lost, found.duplicated) == (0, 0)


def is_put_off(stats: dict[str, Any]) -> bool:
    return bool(stats["retried"] >= 1 and stats["waiting"] == stats["delayed"] == 1)


def test_a_4xx_is_tried_again_and_a_5xx_is_not(running: Strategy, inbox: Inbox, another: Valkey) -> None:
    busy, unknown = someone(), someone()
    another.client.delete(FAILED)
    inbox.dial(refuse_rate=1, refuse_code=550)
    running.send(unknown)
    [record] = wait_until(lambda: failed(another), "it is in the failed list")
    assert (record["exception"], record["payload"]["args"][0]["to"]) == ("Refused", unknown)
    inbox.dial(refuse_rate=1, refuse_code=451)
    answer = running.send(busy)
    wait_until(lambda: is_put_off(running.stats()), "it is to be tried again")
    inbox.dial(refuse_rate=0)
    [message] = inbox.wait_for(busy)
    assert message["message_id"] == answer.json["id"]
    wait_until(lambda: settled(running), "it is acknowledged")
    assert len(failed(another)) == 1
    assert "scheduler" not in running.program.output  # the worker has promoted the delayed job


def test_all_workers_share_one_throttle(inbox: Inbox, clean: Valkey, tmp_path: Path) -> None:
    """At one email in 1,000 seconds, two workers send one together, and all others wait."""
    to = someone()
    with queue(inbox, clean, tmp_path, WORKERS="2", EMAILS_PER_SECOND="0.001") as strategy:
        wait_until(lambda: strategy.stats()["workers"] == 2, "two workers")
        assert [strategy.send(to).status for _ in range(15)] == [202] * 15
        inbox.wait_for(to)
    assert len(inbox.messages(to)) == 1
    assert clean.client.llen(QUEUE) == 14


def test_a_frozen_redis_is_a_504_and_afterwards_it_goes_on(running: Strategy, inbox: Inbox, another: Valkey) -> None:
    to, later = someone(), someone()
    assert running.send(someone()).status == 202  # from then on Redis knows the script
    with frozen(another.pid):
        answer = running.send(to)
        assert answer.status == 504
        assert answer.json["error"]["reason"] == "Redis does not answer in time: the email may still be sent"
        assert not running.healthy()
    wait_until(running.healthy, "it is back")
    [message] = inbox.wait_for(to)
    assert message["message_id"] == answer.json["id"]
    assert running.send(later).status == 202
    inbox.wait_for(later)


def test_rubbish_in_the_queue_ends_in_the_failed_list(running: Strategy, inbox: Inbox, another: Valkey) -> None:
    to = someone()
    bad = {"to": "a@b.example, evil@x.example", "subject": "x", "text": "x"}
    rubbish = ["rubbish", json.dumps({"class": "sendEmail", "args": [bad]}), json.dumps({"class": "rm", "args": []})]
    another.client.delete(FAILED)
    another.client.rpush(QUEUE, *rubbish, json.dumps({"class": "sendEmail", "args": [bad | {"to": to}]}))
    inbox.wait_for(to)
    wait_until(lambda: len(failed(another)) == 3, "the others are set aside")
    assert sorted(record["exception"] for record in failed(another)) == ["BadEmail", "BadJob", "UnknownClass"]


def test_emails_of_other_programs_and_of_schedules_need_no_message_id(
    running: Strategy, inbox: Inbox, another: Valkey, tmp_path: Path
) -> None:
    """A foreign id is data, and each firing of a schedule is an email of its own."""
    to, regular, before = someone(), someone(), running.stats()["failed"]
    for more in ({}, {"id": "abc123"}, {"id": 5}, {"id": 1.5}, {"id": [1]}):
        job = {"class": "sendEmail", "args": [{"to": to, "subject": "s", "text": "t", **more}]}
        another.client.rpush(QUEUE, json.dumps(job))
    names: dict[str, dict[str, str]] = {"plain": {}, "with an id": {"id": "<a@b.example>"}}
    for name, more in names.items():
        args = [{"to": regular, "subject": name, "text": "t", **more}]
        schedule = {"every": "1s", "class": "sendEmail", "queue": "emailQueue", "args": args}
        another.client.hset("resque:persistent_schedules", name, json.dumps(schedule))
    wait_until(lambda: len(inbox.messages(to)) == 5, "all jobs are sent")
    with a_process("scheduler", inbox, another, tmp_path):
        wait_until(
            lambda: min(Counter(m["subject"] for m in inbox.messages(regular))[name] for name in names) >= 2,
            "each schedule has fired twice",
        )
    another.client.delete("resque:persistent_schedules")
    assert running.stats()["failed"] == before
    for address in (to, regular):
        ids = [message["message_id"] for message in inbox.messages(address)]
        assert len(set(ids)) == len(ids)


def test_the_demonstration_shows_the_slots_and_ends_when_it_is_stopped(tmp_path: Path) -> None:
    """It takes half a minute to its end."""
    environment = {
        "DEMO": "1",
        "DATA_DIR": str(tmp_path),
        "VALKEY_PORT": "0",
        "INBOX_PORT": "0",
        "INBOX_SMTP_PORT": "0",
    }
    program = Program(["make", "run-5"], environment)
    try:
        program.wait_for_line("500 jobs that sleep 1 s and 10 that compute for 1 s, all on the event loop")
        program.wait_for_line(r"slots +\d+ █+·+ delay +\d+ ms")
    finally:
        program.stop()
    assert "killing it" not in program.output
