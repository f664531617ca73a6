"""Strategy 5 on RabbitMQ (QUEUE=rabbitmq), in the words of its chapter."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import psutil
import pytest
import trustme

from tests.support.load import Load, account
from tests.support.programs import (
    LIMIT,
    ROOT,
    Inbox,
    Program,
    Strategy,
    a_name,
    clean_environment,
    nobody_s_port,
    running_strategy,
    wait_until,
)
from tests.support.rabbitmq import FAILED, INSTALLED, REASON, RabbitMq, rabbitmq_of, running_rabbitmq, tls_in_front_of

pytestmark = [pytest.mark.skipif(not INSTALLED, reason=REASON), pytest.mark.timeout(240)]

WORKER_KILLS = int(os.environ.get("KILLS", "4"))  # KILLS=50: a long run
BROKER_KILLS = 2
WINDOW = 50  # the most emails that a worker has in its hands
BACK_SECONDS = 60.0  # for RabbitMQ, after a kill


def someone() -> str:
    return f"{a_name()}@example.com"


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMq]:
    with running_rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as rabbitmq:
        yield rabbitmq


@pytest.fixture
def clean(rabbitmq: RabbitMq) -> RabbitMq:
    rabbitmq.empty()
    return rabbitmq


@contextmanager
def queue(inbox: Inbox, tmp_path: Path, rabbitmq: RabbitMq | None = None, **environment: str) -> Iterator[Strategy]:
    """The strategy on this RabbitMQ, or on an embedded one of its own."""
    url = {"AMQP_URL": rabbitmq.url} if rabbitmq else {}
    settings = {"QUEUE": "rabbitmq", "SMTP_URL": inbox.smtp_url, "DRAIN_SECONDS": "2"} | url | environment
    with running_strategy("5_remote_queue", tmp_path, **settings) as strategy:
        yield strategy
    assert "Traceback" not in strategy.program.output


@contextmanager
def a_worker(inbox: Inbox, tmp_path: Path, rabbitmq: RabbitMq, **environment: str) -> Iterator[Program]:
    """A worker in a terminal of its own."""
    addresses = {"QUEUE": "rabbitmq", "AMQP_URL": rabbitmq.url, "SMTP_URL": inbox.smtp_url, "DATA_DIR": str(tmp_path)}
    program = Program(["make", "run-5"], addresses | {"ROLE": "worker", "DRAIN_SECONDS": "2"} | environment)
    try:
        program.wait_for_line("ready to send")
        yield program
    finally:
        program.stop()


def failed_command(rabbitmq: RabbitMq, *words: str) -> str:
    """What the command line prints."""
    command = [sys.executable, "-m", "5_remote_queue.rabbitmq", "failed", *words]
    environment = clean_environment() | {"AMQP_URL": rabbitmq.url}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


def wait_for_all(load: Load, inbox: Inbox) -> None:
    wait_until(lambda: account(load, inbox).lost == 0, "every accepted email is in the inbox", 60)


def test_an_email_waits_in_rabbitmq_until_a_worker_comes(inbox: Inbox, clean: RabbitMq, tmp_path: Path) -> None:
    to = someone()
    with queue(inbox, tmp_path, clean, ROLE="server") as strategy:
        answer = strategy.send(to)
        assert (answer.status, answer.json["status"]) == (202, "accepted")
        stats = strategy.stats()
        assert (stats["waiting"], stats["failed_list"], stats["workers"]) == (1, 0, 0)
        assert stats["sent"] is stats["in_flight"] is stats["oldest_wait_seconds"] is None
        assert 'emails_waiting{strategy="5_remote_queue"} 1.0' in strategy.ask("/metrics").text
        with a_worker(inbox, tmp_path, clean):
            [message] = inbox.wait_for(to)
            assert message["message_id"] == answer.json["id"]
            assert strategy.stats()["workers"] == 1


def test_there_is_no_scheduler_and_no_dashboard_of_redis(inbox: Inbox, clean: RabbitMq, tmp_path: Path) -> None:
    with queue(inbox, tmp_path, clean) as strategy:
        assert strategy.ask("/resque").status == 404
        assert "/resque" not in strategy.ask("/").text
        assert "scheduler" not in strategy.program.output
        assert "valkey" not in strategy.program.output


def test_two_workers_share_the_emails(inbox: Inbox, clean: RabbitMq, tmp_path: Path) -> None:
    to = someone()
    with queue(inbox, tmp_path, clean, WORKERS="2") as strategy:
        wait_until(lambda: strategy.stats()["workers"] == 2, "two workers")
        assert [strategy.send(to).status for _ in range(40)] == [202] * 40
        inbox.wait_for(to, 40)
    assert [message["copies"] for message in inbox.messages(to)] == [1] * 40


def test_killed_workers_lose_nothing_and_double_at_most_what_was_in_flight(
    inbox: Inbox, clean: RabbitMq, tmp_path: Path
) -> None:
    to = someone()
    inbox.dial(latency_ms=50)  # so that there is always something in flight
    with queue(inbox, tmp_path, clean) as strategy:
        with Load(strategy, to, clients=2) as load:
            for _ in range(WORKER_KILLS):
                load.wait_for_more(5)
                strategy.kill("worker")
        wait_for_all(load, inbox)
    found = account(load, inbox)
    assert (found.lost, clean.count(FAILED)) == (0, 0)
    assert found.duplicated <= WORKER_KILLS * WINDOW
    assert set(load.statuses) == {202}


def test_a_killed_rabbitmq_loses_nothing(inbox: Inbox, tmp_path: Path) -> None:
    """The embedded one. It comes back on its port, and the others find it."""
    to = someone()
    inbox.dial(latency_ms=50)
    with queue(inbox, tmp_path) as strategy:
        with Load(strategy, to, clients=2) as load:
            for _ in range(BROKER_KILLS):
                load.wait_for_more(10)
                before = rabbitmq_of(tmp_path).pid
                os.kill(before, signal.SIGKILL)
                wait_until(lambda before=before: rabbitmq_of(tmp_path).pid != before, "another", BACK_SECONDS)  # type: ignore[misc]
                wait_until(strategy.healthy, "it accepts emails", BACK_SECONDS)
        wait_for_all(load, inbox)
    found = account(load, inbox)
    assert found.lost == 0
    assert found.duplicated <= BROKER_KILLS * WINDOW
    assert load.statuses[503] > 0, "while it was down, the server said so"
    assert set(load.statuses) <= {202, 503, 504}


def test_a_worker_does_not_send_again_what_it_could_not_acknowledge(inbox: Inbox, tmp_path: Path) -> None:
    to = someone()
    inbox.dial(latency_ms=5000)  # the inbox has each email at once, and says so later
    with queue(inbox, tmp_path) as strategy:
        assert [strategy.send(to).status for _ in range(5)] == [202] * 5
        inbox.wait_for(to, 5)
        os.kill(rabbitmq_of(tmp_path).pid, signal.SIGKILL)
        wait_until(strategy.healthy, "RabbitMQ is back", BACK_SECONDS)
        last = someone()
        inbox.dial(latency_ms=0)
        wait_until(lambda: strategy.send(last).status == 202, "it accepts another one")
        inbox.wait_for(last)
        assert [message["copies"] for message in inbox.messages(to)] == [1] * 5


def test_a_refused_email_is_in_the_failed_list_until_it_is_requeued(
    inbox: Inbox, clean: RabbitMq, tmp_path: Path
) -> None:
    to, removed = someone(), someone()
    inbox.dial(refuse_rate=1, refuse_code=550)
    with queue(inbox, tmp_path, clean) as strategy:
        ids = [strategy.send(address).json["id"] for address in (to, removed)]
        wait_until(lambda: strategy.stats()["failed_list"] == 2, "both are in the failed list")
        listed = failed_command(clean, "list").splitlines()
        assert [email_id in line for email_id, line in zip(ids, listed, strict=False)] == [True, True]
        assert "Refused: 550" in listed[0]
        assert listed[2] == "2 failed emails"
        assert failed_command(clean, "list").splitlines() == listed, "reading changes nothing"
        inbox.dial(refuse_rate=0)
        assert failed_command(clean, "remove", ids[1]) == "1 emails are removed\n"
        assert failed_command(clean, "requeue", "--all") == "1 emails are back in the queue\n"
        [message] = inbox.wait_for(to)
        assert message["message_id"] == ids[0]
        assert failed_command(clean, "list") == "0 failed emails\n"
    assert inbox.messages(removed) == []


def test_a_4xx_is_tried_again_and_given_up_after_the_last_attempt(
    inbox: Inbox, clean: RabbitMq, tmp_path: Path
) -> None:
    to, hopeless = someone(), someone()
    with queue(inbox, tmp_path, clean, ATTEMPTS="3", RETRY_PAUSES_SECONDS="0.2 0.4") as strategy:
        inbox.dial(refuse_rate=1, refuse_code=451)
        answer = strategy.send(to)
        strategy.program.wait_for_line("again in .* s, after attempt 1: Unavailable: 451")
        inbox.dial(refuse_rate=0)
        [message] = inbox.wait_for(to)
        assert message["message_id"] == answer.json["id"]
        inbox.dial(refuse_rate=1, refuse_code=451)
        strategy.send(hopeless)
        strategy.program.wait_for_line(r"gave up .* after 3 attempt\(s\): Unavailable: 451")
        wait_until(lambda: clean.count(FAILED) == 1, "it is in the failed list")
        assert strategy.stats()["waiting"] == 0


def test_an_outage_of_the_mail_server_costs_no_attempt(inbox: Inbox, clean: RabbitMq, tmp_path: Path) -> None:
    to = someone()
    with nobody_s_port() as port:
        wrong = {"SMTP_URL": f"smtp://127.0.0.1:{port}", "ATTEMPTS": "1"}
        with queue(inbox, tmp_path, clean, **wrong) as strategy:
            assert [strategy.send(to).status for _ in range(5)] == [202] * 5
            strategy.program.wait_for_line("pause: ")
    assert clean.count(FAILED) == 0
    with a_worker(inbox, tmp_path, clean):
        inbox.wait_for(to, 5)


def test_what_is_not_an_email_is_in_the_failed_list(inbox: Inbox, clean: RabbitMq, tmp_path: Path) -> None:
    with queue(inbox, tmp_path, clean) as strategy:
        to = someone()
        wait_until(lambda: strategy.stats()["workers"] == 1, "a worker")
        for body in (b"rubbish", b"[]", b'{"to": "nobody"}', b"\xff\x1b[2J", b""):
            clean.publish(body, attempt="many")
        clean.publish(json.dumps({"to": to, "subject": "Hello", "text": "From another program"}).encode())
        inbox.wait_for(to)
        wait_until(lambda: clean.count(FAILED) == 5, "all others are in the failed list")
        assert "\x1b" not in failed_command(clean, "list")


def test_sigterm_loses_nothing_and_doubles_nothing(inbox: Inbox, clean: RabbitMq, tmp_path: Path) -> None:
    to = someone()
    inbox.dial(latency_ms=300)
    with queue(inbox, tmp_path, clean, ROLE="server") as strategy:
        accepted = {strategy.send(to).json["id"] for _ in range(80)}
        with a_worker(inbox, tmp_path, clean, DRAIN_SECONDS="10"):
            wait_until(lambda: inbox.messages(to), "it is at work")
        with a_worker(inbox, tmp_path, clean, DRAIN_SECONDS="10"):
            inbox.wait_for(to, 80)
    messages = inbox.messages(to)
    assert {message["message_id"] for message in messages} == accepted
    assert {message["copies"] for message in messages} == {1}


def test_what_cannot_be_finished_in_time_goes_back_at_once(inbox: Inbox, clean: RabbitMq, tmp_path: Path) -> None:
    to = someone()
    inbox.dial(hang_rate=1)
    with queue(inbox, tmp_path, clean, ROLE="server") as strategy:
        with a_worker(inbox, tmp_path, clean, DRAIN_SECONDS="0.2"):
            assert [strategy.send(to).status for _ in range(5)] == [202] * 5
            wait_until(lambda: clean.count() == 0, "all are in flight")
        wait_until(lambda: clean.count() == 5, "all are back")
        inbox.dial(hang_rate=0)
        with a_worker(inbox, tmp_path, clean):
            inbox.wait_for(to, 5)


def test_a_worker_consumes_again_after_rabbitmq_has_cancelled_it(inbox: Inbox, clean: RabbitMq, tmp_path: Path) -> None:
    with queue(inbox, tmp_path, clean) as strategy:
        wait_until(lambda: strategy.stats()["workers"] == 1, "a worker")
        clean.delete("emailQueue")
        strategy.program.wait_for_line("RabbitMQ has cancelled the consumer")
        to = someone()
        wait_until(lambda: strategy.send(to).status == 202, "the queue is there again")
        inbox.wait_for(to)


def test_a_queue_that_is_gone_is_a_503_and_is_declared_again(inbox: Inbox, clean: RabbitMq, tmp_path: Path) -> None:
    with queue(inbox, tmp_path, clean, ROLE="server") as strategy:
        assert strategy.send(someone()).status == 202
        clean.delete("emailQueue")
        answer = strategy.send(someone())
        assert (answer.status, "NO_ROUTE" in answer.json["error"]["reason"]) == (503, True)
        assert strategy.send(someone()).status == 202


def test_the_throttle_holds(inbox: Inbox, clean: RabbitMq, tmp_path: Path) -> None:
    to = someone()
    with queue(inbox, tmp_path, clean, EMAILS_PER_SECOND="4") as strategy:
        assert [strategy.send(to).status for _ in range(8)] == [202] * 8
        times = sorted(datetime.fromisoformat(message["received_at"]) for message in inbox.wait_for(to, 8))
    assert (times[-1] - times[0]).total_seconds() > 7 / 4 * 0.9


def test_a_frozen_rabbitmq_is_a_504_and_a_dead_one_a_503(inbox: Inbox, tmp_path: Path) -> None:
    with queue(inbox, tmp_path) as strategy:
        pid = rabbitmq_of(tmp_path).pid
        first = someone()
        assert strategy.send(first).status == 202
        inbox.wait_for(first)
        psutil.Process(pid).suspend()
        try:
            answer = strategy.send(someone())
            assert (answer.status, answer.json["error"]["kind"]) == (504, "NoAnswer")
            assert answer.json["id"]
            assert strategy.send(someone()).status == 503, "the next connection is not even accepted"
            assert strategy.ask("/health").status == 503
            assert strategy.ask("/stats").status == 503
        finally:
            psutil.Process(pid).resume()
        wait_until(strategy.healthy, "it accepts emails again")
        last = someone()
        assert strategy.send(last).status == 202
        inbox.wait_for(last)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: strategy.send(someone()).status == 503, "it is down")
        answer = strategy.send(someone())
        assert answer.headers["Retry-After"] == "1"
        assert "id" not in answer.json


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("amqp://guest:secret@127.0.0.1:{port}/", "does not accept the user or the password"),
        ("amqp://guest:guest@127.0.0.1:{port}/secret-host", "does not give this user the virtual host 'secret-host'"),
        ("amqps://guest:guest@127.0.0.1:{port}/", "cannot be reached: .*SSL"),
        ("amqp://guest:secret@127.0.0.1:1/", "cannot be reached: "),
        ("amqp://guest:secret@127.0.0.1:1/a/b", "must end with host, port and virtual host"),
        ("http://guest:secret@127.0.0.1:1/", "must begin with amqp:// or amqps://"),
    ],
)
def test_an_amqp_url_that_leads_nowhere_is_one_line(url: str, said: str, rabbitmq: RabbitMq, tmp_path: Path) -> None:
    settings = {"QUEUE": "rabbitmq", "AMQP_URL": url.format(port=rabbitmq.port), "DATA_DIR": str(tmp_path), "PORT": "0"}
    program = Program([sys.executable, "-m", "common.processes.run", "5"], settings)
    program.wait_for_line(f"AMQP_URL: .*{said}")
    assert program.process.wait(LIMIT) == 2
    program.stop()
    assert len(program.lines) == 1
    assert "secret@" not in program.output


def test_a_user_a_virtual_host_and_tls_of_your_own(inbox: Inbox, rabbitmq: RabbitMq, tmp_path: Path) -> None:
    """The permissions are those that the chapter names."""
    name, authority, to = a_name(), trustme.CA(), someone()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    rabbitmq.ctl("add_vhost", name)
    rabbitmq.ctl("add_user", name, "p@ss/word")
    rabbitmq.ctl("set_permissions", "-p", name, name, r"emailQueue.*", r"emailQueue.*|amq\.default", r"emailQueue.*")
    with tls_in_front_of(rabbitmq, authority.issue_cert("localhost")) as port:
        url = f"amqps://{name}:p%40ss%2Fword@localhost:{port}/{name}?cafile={tmp_path}/ca.pem"
        with queue(inbox, tmp_path, AMQP_URL=url) as strategy:
            inbox.dial(refuse_rate=1, refuse_code=451)
            assert strategy.send(to).status == 202
            strategy.program.wait_for_line("after attempt 1: Unavailable: 451")
            inbox.dial(refuse_rate=0)
            inbox.wait_for(to)


def test_an_alarm_of_rabbitmq_is_a_503(inbox: Inbox, clean: RabbitMq, tmp_path: Path) -> None:
    with queue(inbox, tmp_path, clean) as strategy:
        to = someone()
        clean.ctl("set_vm_memory_high_watermark", "0.00001")
        try:
            assert strategy.send(to).status == 504, "this message is what RabbitMQ answers with its alarm"
            assert strategy.send(to).status == 503
            assert strategy.ask("/health").status == 503
        finally:
            clean.ctl("set_vm_memory_high_watermark", "0.4")
        wait_until(strategy.healthy, "the alarm is over")
        assert strategy.send(to).status == 202
        inbox.wait_for(to, 2)


@pytest.mark.parametrize("setting", ["STEP", "DEMO"])
def test_the_steps_and_the_demonstration_are_not_on_rabbitmq(setting: str, tmp_path: Path) -> None:
    settings = {"QUEUE": "rabbitmq", setting: {"STEP": "pop", "DEMO": "1"}[setting], "DATA_DIR": str(tmp_path)}
    program = Program([sys.executable, "-m", "common.processes.run", "5"], settings | {"PORT": "0"})
    program.wait_for_line("^QUEUE: the steps and the demonstration")
    assert program.process.wait(LIMIT) == 2
    program.stop()
