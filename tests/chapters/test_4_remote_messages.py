"""The promises of chapter 4."""

import asyncio
import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from asynckit.ids import new_id
from asynckit.redis_client import redis_client
from common.mail.emails import Email
from common.mail.mailer import Mailer
from common.mail.memory_queue import MemoryQueue
from common.processes.chapter import chapter_module
from tests.support.load import Load, account
from tests.support.log_lines import at_most_once_a_second
from tests.support.programs import (
    LIMIT,
    Answer,
    Inbox,
    Program,
    Strategy,
    Valkey,
    a_name,
    email_path,
    nobody_s_port,
    running_strategy,
    running_valkey,
    until,
    valkey_of,
    wait_until,
)
from tests.support.smtp_peer import smtp_peer

channel = chapter_module("4_remote_messages.channel")
worker_module = chapter_module("4_remote_messages.worker")


def someone() -> str:
    return f"{a_name()}@example.com"


def as_json(to: str, **more: Any) -> str:
    return json.dumps({"to": to, "subject": "Hello", "text": "How are you?"} | more)


@contextmanager
def remote(inbox: Inbox, valkey: Valkey, tmp_path: Path, **environment: str) -> Iterator[Strategy]:
    wait_until(lambda: valkey.subscribers() == 0, "the workers of the previous test have ended")
    addresses = {"SMTP_URL": inbox.smtp_url, "REDIS_URL": valkey.url, "DRAIN_SECONDS": "2"}
    with running_strategy("4_remote_messages", tmp_path, **(addresses | environment)) as strategy:
        if environment.get("ROLE") != "server":
            wait_until(strategy.healthy, "a worker is subscribed")
        yield strategy


@contextmanager
def a_worker(inbox: Inbox, tmp_path: Path, **environment: str) -> Iterator[Program]:
    """A worker in its own terminal."""
    addresses = {
        "SMTP_URL": inbox.smtp_url,
        "DATA_DIR": str(tmp_path),
        "ROLE": "worker",
        "VALKEY_PORT": "0",
        "DRAIN_SECONDS": "2",
    }
    program = Program(["make", "run-4"], addresses | environment)
    try:
        program.wait_for_line("subscribed to emailz$")
        yield program
    finally:
        program.stop()


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """The Valkey of `running`."""
    with running_valkey(tmp_path_factory.mktemp("another")) as valkey:
        yield valkey


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
    with nobody_s_port() as port, remote(inbox, valkey, tmp_path, SMTP_URL=f"smtp://127.0.0.1:{port}") as strategy:
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


def test_another_program_may_ask_for_reports(running: Strategy, inbox: Inbox, another: Valkey) -> None:
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


# A subscriber that Redis cuts off, and a subscription that dies.


async def test_a_worker_that_reads_too_slowly_is_cut_off_and_accepted_emails_are_lost(
    inbox: Inbox, tmp_path: Path
) -> None:
    to, last = someone(), someone()
    with (
        running_valkey(tmp_path / "own") as valkey,
        remote(inbox, valkey, tmp_path, DRAIN_SECONDS="10") as strategy,
    ):
        valkey.client.config_set("client-output-buffer-limit", "pubsub 65536 0 0")
        path, accepted = email_path(to, "Hello", "x" * 4000), 0
        worker = strategy.pid("worker")
        os.kill(worker, signal.SIGSTOP)
        async with aiohttp.ClientSession() as session, asyncio.timeout(LIMIT):
            while valkey.subscribers():  # the kernel buffers several megabytes first
                answers = await asyncio.gather(*[session.get(strategy.url + path) for _ in range(50)])
                accepted += sum(answer.status == 202 for answer in answers)
        os.kill(worker, signal.SIGCONT)
        strategy.program.wait_for_line(rf"\[worker @ {worker}\] .* subscribed to emailz again \(1 so far\)")
        assert strategy.send(last).status == 202
        await asyncio.to_thread(inbox.wait_for, last)
    assert "not sent within" not in strategy.program.output
    assert len(inbox.messages(to)) < accepted < 9_000, "accepted, and never sent; the inbox keeps 10,000"


def test_redis_and_its_subscribers_are_back_after_a_kill(inbox: Inbox, tmp_path: Path) -> None:
    """The runner restarts the embedded Valkey."""
    with running_strategy("4_remote_messages", tmp_path, SMTP_URL=inbox.smtp_url) as strategy:
        with Load(strategy, someone()) as load:
            for _ in range(3):
                load.wait_for_more(50)
                kill_and_wait(strategy, valkey_of(tmp_path))
                load.wait_for_more(1)
        assert {202} < set(load.statuses) <= {202, 503, 504}
        settled(strategy, inbox)
        found = account(load, inbox)
        assert found.lost <= 3 * load.clients, "at each kill no more than what was published and not yet read"
        assert (found.duplicated, found.unexpected) == (0, 0)
        synchronous = f"{email_path(someone(), 'Hello', 'x')}?wait=5"
        wait_until(lambda: strategy.ask(synchronous).status == 200, "replies arrive again")
    assert "Traceback" not in strategy.program.output
    at_most_once_a_second(strategy.program.output, "not subscribed")


def kill_and_wait(strategy: Strategy, valkey: Valkey) -> None:
    os.kill(valkey.pid, signal.SIGKILL)
    wait_until(lambda: strategy.ask("/health").status == 503, "the server has noticed")
    wait_until(lambda: is_back(valkey), "Redis is back")
    wait_until(lambda: valkey.subscribers() == 1, "the worker has subscribed again")
    wait_until(strategy.healthy, "the server has noticed that too")


def is_back(valkey: Valkey) -> bool:
    from redis.exceptions import RedisError

    try:
        return bool(valkey.client.ping())
    except RedisError:
        return False


def settled(strategy: Strategy, inbox: Inbox) -> None:
    """Send one more email and wait until it has arrived after all others."""
    to = someone()
    wait_until(lambda: strategy.send(to).status == 202, "the last email is accepted")
    inbox.wait_for(to)


def test_a_redis_that_hangs_means_504_and_a_new_subscription(inbox: Inbox, tmp_path: Path) -> None:
    to = someone()
    with running_valkey(tmp_path) as valkey, remote(inbox, valkey, tmp_path) as strategy:
        os.kill(valkey.pid, signal.SIGSTOP)
        try:
            answer = strategy.send(to)
            assert answer.status == 504
            assert answer.json["id"]
            assert strategy.ask("/health").status == 503
            assert strategy.stats()["workers"] is None
            for role in ("worker", "server"):
                strategy.program.wait_for_line(rf"^\[{role} @ \d+\] .* not subscribed to emailz.*: Redis")
        finally:
            os.kill(valkey.pid, signal.SIGCONT)
        wait_until(strategy.healthy, "an email can be accepted again")
        later = someone()
        assert strategy.send(later).status == 202
        inbox.wait_for(later)
    at_most_once_a_second(strategy.program.output, "not subscribed")


async def test_a_message_without_an_answer_from_redis_is_not_published_again(valkey: Valkey) -> None:
    """A second PUBLISH would be a second email."""
    lose = True

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", valkey.port)
        while data := await reader.read(1 << 16):
            to_writer.write(data)
            answer = await to_reader.read(1 << 16)
            if lose and b"EVALSHA" in data and not answer.startswith(b"-NOSCRIPT"):
                break
            writer.write(answer)
        writer.close()
        to_writer.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    name = a_name()
    with closing(valkey.listen(name)) as listener:
        async with server, redis_client(url) as redis:
            publisher = channel.Publisher(redis)
            with pytest.raises(RedisConnectionError):
                await publisher.publish(name, b"first")
            lose = False
            assert await publisher.publish(name, b"second") == 1
        assert [listener.get_message(timeout=LIMIT)["data"] for _ in range(2)] == ["first", "second"]


async def test_simultaneous_calls_are_published_in_one_batch_and_in_order(valkey: Valkey) -> None:
    name = a_name()
    before = valkey.client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)
    with closing(valkey.listen(name)) as listener:
        async with redis_client(valkey.url) as redis:
            publisher = channel.Publisher(redis)
            numbers = [publisher.publish(name if n % 2 == 0 else "nobody", str(n).encode()) for n in range(100)]
            assert await asyncio.gather(*numbers) == [1, 0] * 50
        received = [listener.get_message(timeout=LIMIT)["data"] for _ in range(50)]
    assert received == [str(n) for n in range(0, 100, 2)]
    assert valkey.client.info("commandstats")["cmdstat_evalsha"]["calls"] - before <= 2


async def test_emails_beyond_the_worker_s_limit_are_dropped_counted_and_logged(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker_module, "MemoryQueue", partial(MemoryQueue, limit=1))
    emails = [Email(new_id("example.com"), someone(), "Hello", "x") for _ in range(3)]
    async with smtp_peer() as peer, Mailer(peer.settings()) as mailer, redis_client(valkey.url) as redis:
        peer.replies["."] = b""
        worker = worker_module.Worker(peer.settings(drain_seconds=0.1), redis, mailer)
        stopped = asyncio.Event()
        monkeypatch.setattr(worker_module, "stop_requested", lambda: stop_when(stopped))
        running = asyncio.create_task(worker.run())
        await until(lambda: valkey.subscribers() == 1)
        for email in emails:
            valkey.publish(email.to_json())
        await until(lambda: worker.dropped == 2)
        stopped.set()
        await running
    assert re.findall(r"lost (<\S+>) \(1 so far\): the queue is full", caplog.text) == [emails[1].id]
    assert re.findall(r"lost (<\S+>): not sent within 0.1 s", caplog.text) == [emails[0].id]


async def stop_when(event: asyncio.Event) -> str:
    await event.wait()
    return "the test is over"


# Stopping, and the throttle.


def test_sigterm_drains_what_the_worker_holds(inbox: Inbox, valkey: Valkey, tmp_path: Path) -> None:
    to = someone()
    inbox.dial(latency_ms=700)
    with remote(inbox, valkey, tmp_path, DRAIN_SECONDS="10") as strategy:
        assert [strategy.send(to).status for _ in range(5)] == [202] * 5
    assert len(inbox.messages(to)) == 5
    assert "lost" not in strategy.program.output


def test_a_worker_that_is_stopped_under_load_loses_nothing(inbox: Inbox, valkey: Valkey, tmp_path: Path) -> None:
    """It unsubscribes first, and still accepts what was published before Redis has unsubscribed it."""
    with remote(inbox, valkey, tmp_path, ROLE="server") as strategy, Load(strategy, someone()) as load:
        for _ in range(2):
            with a_worker(inbox, tmp_path, REDIS_URL=valkey.url, DRAIN_SECONDS="10"):
                load.wait_for_more(50)
    found = account(load, inbox)
    assert (found.lost, found.duplicated, found.unexpected) == (0, 0, 0)
    assert found.accepted >= 100
    assert 503 in load.statuses, "no worker was subscribed for a moment"


def test_a_throttled_worker_sends_one_email_and_logs_the_ids_of_those_that_have_to_wait_at_its_stop(
    inbox: Inbox, valkey: Valkey, tmp_path: Path
) -> None:
    """At one email in 1,000 seconds, the second one is due long after the stop."""
    to = someone()
    with remote(inbox, valkey, tmp_path, EMAILS_PER_SECOND="0.001", DRAIN_SECONDS="0.2") as strategy:
        ids = [strategy.send(to).json["id"] for _ in range(6)]
        inbox.wait_for(to)
    assert [message["message_id"] for message in inbox.messages(to)] == ids[:1]
    assert re.findall(r"lost (<\S+>): not sent within 0.2 s of the stop", strategy.program.output) == ids[1:]


# Two terminals, or two machines.


def test_server_and_worker_in_two_terminals_find_the_same_valkey(inbox: Inbox, tmp_path: Path) -> None:
    to, later = someone(), someone()
    with ExitStack() as stack:
        own = {"SMTP_URL": inbox.smtp_url, "ROLE": "server"}
        strategy = stack.enter_context(running_strategy("4_remote_messages", tmp_path, **own))
        with a_worker(inbox, tmp_path) as worker:
            assert "listens on" not in worker.output
            wait_until(strategy.healthy, "the server sees the worker")
            assert strategy.send(to).status == 202
            inbox.wait_for(to)
        assert strategy.send(to).status == 503, "the first terminal still has its Valkey, but no worker is subscribed"
        with a_worker(inbox, tmp_path):
            assert strategy.send(later).status == 202
            inbox.wait_for(later)


def test_the_password_of_your_own_redis_is_shown_nowhere(inbox: Inbox, tmp_path: Path) -> None:
    to = someone()
    with running_valkey(tmp_path / "own") as valkey:
        valkey.client.config_set("requirepass", "right-horse")
        url = f"redis://:right-horse@127.0.0.1:{valkey.port}/0"
        with running_strategy("4_remote_messages", tmp_path, SMTP_URL=inbox.smtp_url, REDIS_URL=url) as strategy:
            wait_until(strategy.healthy, "a worker is subscribed")
            assert strategy.send(to).status == 202
            inbox.wait_for(to)
            shown = [strategy.ask(path).text for path in ("/", "/stats", "/metrics", "/health")]
        wrong = {"SMTP_URL": inbox.smtp_url, "REDIS_URL": url.replace("right", "wrong"), "ROLE": "server"}
        with running_strategy("4_remote_messages", tmp_path, **wrong) as refused:
            answer = refused.send(to)
            assert (answer.status, answer.json["error"]["reason"]) == (503, "Redis refuses the login")
            shown += [answer.text, refused.ask("/health").text]
    assert not (tmp_path / "valkey.json").exists(), "no embedded Valkey was started"
    assert "horse" not in strategy.program.output + refused.program.output + "".join(shown)
