"""The promises of chapter 4: what an answer means, the synchronous style, other programs, and kills."""

import json
import re
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from asynckit.ids import new_id
from tests.support.log_lines import at_most_once_a_second
from tests.support.programs import LIMIT, Answer, Strategy, a_name, closed_port, email_path, someone, wait_until
from tests.support.remote_messages import a_worker, as_json, remote
from tests.support.servers import Inbox, Valkey


@pytest.fixture(scope="module")
def running(inbox: Inbox, another: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strategy]:
    with remote(inbox, another, tmp_path_factory.mktemp("running")) as strategy:
        wait_until(
            lambda: another.client.pubsub_channels("emailz:replies:*"),
            "the server is subscribed to the workers' replies",
        )
        wait_until(lambda: synchronous(strategy, someone(), "5").status == 200, "a reply arrives")
        yield strategy
    assert "Traceback" not in strategy.program.output, "no message causes an unexpected error"


def test_with_a_subscribed_worker_an_email_is_accepted_and_sent(running: Strategy, inbox: Inbox) -> None:
    to, before = someone(), running.stats()
    answer = running.send(to)
    assert (answer.status, answer.json["status"]) == (202, "accepted")
    [message] = inbox.wait_for(to)
    assert message["message_id"] == answer.json["id"]
    stats = running.stats()
    assert (stats["accepted"], stats["workers"]) == (before["accepted"] + 1, 1)
    assert stats["sent"] is stats["failed"] is stats["waiting"] is stats["in_flight"] is None, "only workers know"


def test_an_idle_subscription_stays_subscribed(running: Strategy, another: Valkey) -> None:
    """It answers several PINGs, so the worker does not take the idle connection for dead."""

    def pings() -> int:
        return int(another.client.info("commandstats").get("cmdstat_ping", {}).get("calls", 0))

    before = pings()
    wait_until(lambda: pings() >= before + 6, "six PINGs")
    assert "no answer to PING" not in running.program.output
    assert "again" not in running.program.output


def test_without_a_subscriber_an_email_is_refused_and_a_published_one_is_lost(
    inbox: Inbox, valkey: Valkey, tmp_path: Path
) -> None:
    early, late = someone(), someone()
    with remote(inbox, valkey, tmp_path, ROLE="server") as strategy:
        answer = strategy.send(early)
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "1"
        assert answer.json["error"] == {"reason": "no worker is subscribed"}
        assert strategy.ask(email_path(early, "Hello", "x") + "?wait=5").status == 503
        health = strategy.ask("/health")
        assert (health.status, health.json["reason"]) == (503, "no worker is subscribed")
        assert valkey.publish(as_json(early)) == 0, "Redis returns 0 and keeps nothing"
        with a_worker(inbox, tmp_path, REDIS_URL=valkey.url):
            assert strategy.healthy()
            assert strategy.send(late).status == 202
            inbox.wait_for(late)
    assert inbox.messages(early) == []


def test_two_workers_send_every_email_twice(inbox: Inbox, valkey: Valkey, tmp_path: Path) -> None:
    """There can be only one worker."""
    to = someone()
    with remote(inbox, valkey, tmp_path, WORKERS="2") as strategy:
        wait_until(lambda: strategy.stats()["workers"] == 2, "two workers")
        assert [strategy.send(to).status for _ in range(10)] == [202] * 10
        wait_until(lambda: [m["copies"] for m in inbox.messages(to)] == [2] * 10, "two copies of each")
        assert strategy.stats()["accepted"] == 10


# The synchronous style: the caller waits for the worker's report.


def synchronous(strategy: Strategy, to: str, wait: str) -> Answer:
    return strategy.ask(f"{email_path(to, 'Hello', 'x')}?wait={wait}")


@pytest.fixture(scope="module")
def asked(running: Strategy) -> Any:
    return partial(synchronous, running)


def test_a_waiting_caller_learns_that_the_email_was_sent(asked: Any, inbox: Inbox) -> None:
    to = someone()
    inbox.dial(latency_ms=100)
    answer = asked(to, "60")
    assert (answer.status, answer.json["status"]) == (200, "sent")
    assert len(inbox.messages(to)) == 1, "when the answer comes, the email is there"


@pytest.mark.parametrize("code", [550, 451])
def test_a_waiting_caller_learns_that_the_email_was_refused_and_it_is_not_tried_again(
    asked: Any, running: Strategy, inbox: Inbox, code: int
) -> None:
    to = someone()
    inbox.dial(refuse_rate=1, refuse_code=code)
    answer = asked(to, "5")
    assert answer.status == 502
    assert answer.json["error"]["kind"] == "NotSent"
    assert str(code) in answer.json["error"]["reason"]
    running.program.wait_for_line(rf"gave up {re.escape(answer.json['id'])} after 1 attempt")


def test_a_caller_does_not_wait_for_a_mail_server_that_is_down(valkey: Valkey, inbox: Inbox, tmp_path: Path) -> None:
    with closed_port() as port, remote(inbox, valkey, tmp_path, SMTP_URL=f"smtp://127.0.0.1:{port}") as strategy:
        for _ in range(3):
            answer = strategy.ask(f"{email_path(someone(), 'Hello', 'x')}?wait=5")
            assert answer.status == 502
            assert "Unreachable" in answer.json["error"]["reason"]


def test_without_a_report_in_time_the_answer_is_in_doubt(asked: Any, inbox: Inbox) -> None:
    inbox.dial(hang_rate=1)
    answer = asked(someone(), "2")
    assert answer.status == 504
    assert answer.json["error"] == {
        "kind": "InDoubt",
        "reason": "a worker has started but not finished within 2 s: the email may still be sent",
    }


@pytest.mark.parametrize("wait", ["0", "-1", "61", "60.1", "x", "", "nan", "inf", "1e1", "1_0", "%20", "1,5", "٣"])
def test_an_invalid_wait_is_answered_with_400(asked: Any, running: Strategy, inbox: Inbox, wait: str) -> None:
    from urllib.parse import quote

    to = someone()
    before = running.stats()["accepted"]
    answer = asked(to, wait if wait == "%20" else quote(wait))
    assert answer.status == 400
    assert answer.json["error"]["field"] == "wait"
    assert running.stats()["accepted"] == before
    assert inbox.messages(to) == []


def test_other_reports_and_invalid_messages_on_the_reply_channel_are_ignored(asked: Any, another: Valkey) -> None:
    [replies] = another.client.pubsub_channels("emailz:replies:*")
    for message in (b"\xff\x00", "[]", "{}", '{"id": 1}', '{"id": "<a@b>", "status": "sent"}', "null", "[" * 5000):
        assert another.publish(message, str(replies)) == 1
    assert asked(someone(), "5").status == 200


# Other programs on the channel.


def test_another_program_may_publish_without_an_id(running: Strategy, inbox: Inbox, another: Valkey) -> None:
    to = someone()
    assert another.publish(as_json(to)) == 1
    assert another.publish(as_json(to, priority="high", id=None)) == 1
    messages = inbox.wait_for(to, 2)
    assert all(re.fullmatch(r"<\w+@example\.com>", message["message_id"]) for message in messages)


def test_another_program_may_ask_for_reports(running: Strategy, another: Valkey) -> None:
    mine = f"my-replies-{a_name()}"
    with closing(another.listen(mine)) as replies:
        email_id = new_id("example.com")
        assert another.publish(as_json(someone(), id=email_id, reply_to=mine)) == 1
        reports = [json.loads(replies.get_message(timeout=LIMIT)["data"]) for _ in range(2)]
    assert reports == [{"id": email_id, "status": "started"}, {"id": email_id, "status": "sent"}]


def test_another_program_can_read_what_the_server_publishes(running: Strategy, another: Valkey) -> None:
    to = someone()
    with closing(another.listen("emailz")) as listener:
        answer = running.send(to, "Grüße", "a/b")
        message = json.loads(listener.get_message(timeout=LIMIT)["data"])
    assert message == {"id": answer.json["id"], "to": to, "subject": "Grüße", "text": "a/b"}


INVALID_MESSAGES = [
    b"", b"\x80\x04\x95pickle", b"not json", b"null", b"1", b"[]", b'"text"', b"{}", b"{" * 100_000, b"[" * 100_000,
    b'{"to": NaN}', b'{"to": 1, "subject": 2, "text": 3}', b'{"to": "a@b.example", "subject": "x"}',
    as_json("nobody").encode(), as_json("a@b.example, evil@x.example").encode(),
    as_json("a@b.example", subject="x\r\nBcc: evil@x.example").encode(),
    as_json("a@b.example", text="x" * 200_000).encode(),
    as_json("a@b.example", text="\ud800").encode(), b"x" * 10_000_000,
]  # fmt: skip


def test_invalid_messages_are_counted_and_logged_once_a_second(inbox: Inbox, valkey: Valkey, tmp_path: Path) -> None:
    to = someone()
    # Without a limit, because the worker may read slowly on a busy machine.
    valkey.client.config_set("client-output-buffer-limit", "pubsub 0 0 0")
    with remote(inbox, valkey, tmp_path) as strategy:
        for message in INVALID_MESSAGES * 20:
            assert valkey.publish(message) == 1
        valkey.publish(as_json(to, reply_to="emailz"))  # a report on this channel would be an invalid message itself
        valkey.publish(as_json(to, reply_to={"a": 1}))
        inbox.wait_for(to, 2)
    assert f"invalid {len(INVALID_MESSAGES) * 20}," in strategy.program.output, "the worker's last line has the figures"
    assert "Traceback" not in strategy.program.output
    assert at_most_once_a_second(strategy.program.output, "not a valid email") >= 1


# Kills of `running`.


def test_a_killed_worker_loses_what_it_held(running: Strategy, inbox: Inbox) -> None:
    lost, later = someone(), someone()
    before = running.stats()["accepted"]
    inbox.dial(hang_rate=1)
    assert [running.send(lost).status for _ in range(10)] == [202] * 10
    running.kill("worker")
    wait_until(running.healthy, "another worker is subscribed")
    inbox.dial(hang_rate=0)  # only now: otherwise the inbox would accept what the dead worker had already written
    assert running.send(later).status == 202
    inbox.wait_for(later)
    assert inbox.messages(lost) == [], "ten answers, no email"
    assert running.stats()["accepted"] == before + 11, "the server does not notice the loss"


def test_a_killed_server_loses_nothing(running: Strategy, inbox: Inbox) -> None:
    to = someone()
    inbox.dial(latency_ms=300)
    assert [running.send(to).status for _ in range(10)] == [202] * 10
    running.kill("server")
    inbox.wait_for(to, 10)
    wait_until(running.healthy, "the server is back")
