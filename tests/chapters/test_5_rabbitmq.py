"""Strategy 5 on RabbitMQ (QUEUE=rabbitmq), in the words of its chapter."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from aio_pika import Message
from pamqp.common import FieldTable

from tests.support.load import Load, account, wait_for_all
from tests.support.programs import LIMIT, Program, Strategy, a_name, someone, wait_until
from tests.support.rabbitmq import (
    FAILED,
    INSTALLED,
    REASON,
    WINDOW,
    RabbitMq,
    a_worker,
    failed_command,
    queue,
    refused_command,
    tls_in_front_of,
)
from tests.support.servers import Inbox

pytestmark = pytest.mark.skipif(not INSTALLED, reason=REASON)

WORKER_KILLS = int(os.environ.get("KILLS", "3"))  # KILLS=50: a long run


@pytest.fixture(scope="module")
def own(rabbitmq: RabbitMq) -> RabbitMq:
    """A virtual host of the same RabbitMQ, and a user with only the permissions that the chapter names."""
    name = a_name()
    rabbitmq.ctl("add_vhost", name)
    rabbitmq.ctl("add_user", name, "p@ss/word")
    rabbitmq.ctl("set_permissions", "-p", name, name, r"emailQueue.*", r"emailQueue.*|amq\.default", r"emailQueue.*")
    return rabbitmq.as_user(name, "p%40ss%2Fword", name)


@pytest.fixture(scope="module")
def running(inbox: Inbox, own: RabbitMq, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strategy]:
    """The strategy in the virtual host `own`, over TLS."""
    tmp_path, authority = tmp_path_factory.mktemp("running"), trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with tls_in_front_of(own, authority.issue_cert("localhost")) as port:
        url = own.url.replace("amqp:", "amqps:").replace(f"127.0.0.1:{own.port}", f"localhost:{port}")
        settings = {"AMQP_URL": f"{url}?cafile={tmp_path}/ca.pem", "ATTEMPTS": "3", "RETRY_PAUSES_SECONDS": "0.2 0.4"}
        with queue(inbox, tmp_path, None, **settings) as strategy:
            wait_until(lambda: strategy.stats()["workers"] == 1, "a worker")
            yield strategy


def test_an_email_waits_in_rabbitmq_until_a_worker_comes(inbox: Inbox, empty: RabbitMq, tmp_path: Path) -> None:
    to = someone()
    with queue(inbox, tmp_path, empty, ROLE="server") as strategy:
        answer = strategy.send(to)
        assert (answer.status, answer.json["status"]) == (202, "accepted")
        stats = strategy.stats()
        assert (stats["waiting"], stats["failed_list"], stats["workers"]) == (1, 0, 0)
        assert stats["sent"] is stats["in_flight"] is stats["oldest_wait_seconds"] is None
        assert 'emails_waiting{strategy="5_remote_queue"} 1.0' in strategy.ask("/metrics").text
        with a_worker(inbox, tmp_path, empty):
            [message] = inbox.wait_for(to)
            assert message["message_id"] == answer.json["id"]
            assert strategy.stats()["workers"] == 1
        empty.delete("emailQueue")
        answer = strategy.send(someone())
        assert (answer.status, "NO_ROUTE" in answer.json["error"]["reason"]) == (503, True)
        assert strategy.send(someone()).status == 202, "the queue is declared again"


def test_there_is_no_scheduler_and_no_dashboard_of_redis(running: Strategy) -> None:
    assert running.ask("/resque").status == 404
    assert "/resque" not in running.ask("/").text
    assert "scheduler" not in running.program.output
    assert "valkey" not in running.program.output


def test_killed_workers_lose_nothing_and_double_at_most_what_was_in_flight(
    running: Strategy, inbox: Inbox, own: RabbitMq
) -> None:
    inbox.dial(latency_ms=50)  # so that there is always something in flight
    failed = own.count(FAILED)
    with Load(running, someone(), clients=2) as load:
        for _ in range(WORKER_KILLS):
            load.wait_for_more(5)
            running.kill("worker")
    wait_for_all(load, inbox)
    found = account(load, inbox)
    assert (found.lost, own.count(FAILED)) == (0, failed)
    assert found.duplicated <= WORKER_KILLS * WINDOW
    assert set(load.statuses) == {202}


def test_a_refused_email_is_in_the_failed_list_until_it_is_requeued(
    running: Strategy, inbox: Inbox, own: RabbitMq
) -> None:
    to, removed = someone(), someone()
    own.empty()
    inbox.dial(refuse_rate=1, refuse_code=550)
    ids = [running.send(address).json["id"] for address in (to, removed)]
    wait_until(lambda: running.stats()["failed_list"] == 2, "both are in the failed list")
    listed = failed_command(own, "list").splitlines()
    assert [email_id in line for email_id, line in zip(ids, listed, strict=False)] == [True, True]
    assert "Refused: 550" in listed[0]
    assert listed[2] == "2 failed emails"
    assert failed_command(own, "list").splitlines() == listed, "reading changes nothing"
    inbox.dial(refuse_rate=0)
    assert failed_command(own, "remove", ids[1]) == "1 emails are removed\n"
    assert failed_command(own, "requeue", "--all") == "1 emails are back in the queue\n"
    [message] = inbox.wait_for(to)
    assert message["message_id"] == ids[0]
    assert failed_command(own, "list") == "0 failed emails\n"
    assert inbox.messages(removed) == []


def test_the_failed_list_can_be_read_any_number_of_times(running: Strategy, own: RabbitMq) -> None:
    """Each reading counts as a delivery, and RabbitMQ 4 deletes a message after 20 deliveries unless a limit is set."""
    arguments: FieldTable = {"x-queue-type": "quorum", "x-delivery-limit": 2**31 - 1}
    assert running.healthy()
    own.ask(lambda channel: channel.declare_queue(FAILED, durable=True, arguments=arguments))  # raises if they differ


def test_the_commands_of_the_failed_list_accept_odd_messages_and_ids(running: Strategy, own: RabbitMq) -> None:
    assert running.healthy()
    own.empty()

    def fail(message_id: str, **headers: str | int) -> None:
        message = Message(b"\x00\x1b[31mred\xff", message_id=message_id, headers=dict(headers))
        own.ask(lambda channel: channel.default_exchange.publish(message, FAILED))

    fail("evil\x1b[31m\nid", failed_at=2**62, error="a\r\nb")
    fail("plain", failed_at=-(2**62))
    fail("last")
    listed = failed_command(own, "list").splitlines()
    assert len(listed) == 4
    assert all("  -  " in line and line.isprintable() for line in listed[:3])
    assert refused_command(own, "remove", "unknown\x1b[31m", "plain") == "not in the failed list: unknown [31m\n"
    assert own.count(FAILED) == 2
    shown = "evil [31m id"
    assert f"  {shown}  " in listed[0]
    assert failed_command(own, "remove", shown) == "1 emails are removed\n", "the id as `list` prints it"
    assert (
        refused_command(own, "requeue", "9" * 100, "")
        == f"not in the failed list: \nnot in the failed list: {'9' * 100}\n"
    )
    own.empty()


def test_a_4xx_is_tried_again_and_given_up_after_the_last_attempt(
    running: Strategy, inbox: Inbox, own: RabbitMq
) -> None:
    to, hopeless = someone(), someone()
    own.empty()
    inbox.dial(refuse_rate=1, refuse_code=451)
    answer = running.send(to)
    running.program.wait_for_line("again in .* s, after attempt 1: Unavailable: 451")
    inbox.dial(refuse_rate=0)
    [message] = inbox.wait_for(to)
    assert message["message_id"] == answer.json["id"]
    inbox.dial(refuse_rate=1, refuse_code=451)
    running.send(hopeless)
    running.program.wait_for_line(r"gave up .* after 3 attempt\(s\): Unavailable: 451")
    wait_until(lambda: own.count(FAILED) == 1, "it is in the failed list")
    assert running.stats()["waiting"] == 0


def test_what_is_not_an_email_is_in_the_failed_list(running: Strategy, inbox: Inbox, own: RabbitMq) -> None:
    to = someone()
    own.empty()
    for body in (b"rubbish", b"[]", b'{"to": "nobody"}', b"\xff\x1b[2J", b""):
        own.publish(body, attempt="many")
    own.publish(json.dumps({"to": to, "subject": "Hello", "text": "From another program"}).encode())
    inbox.wait_for(to)
    wait_until(lambda: own.count(FAILED) == 5, "all others are in the failed list")
    assert "\x1b" not in failed_command(own, "list")


def test_a_worker_consumes_again_after_rabbitmq_has_cancelled_it(
    running: Strategy, inbox: Inbox, own: RabbitMq
) -> None:
    to = someone()
    own.delete("emailQueue")
    running.program.wait_for_line("RabbitMQ has cancelled the consumer")
    wait_until(lambda: running.send(to).status == 202, "the queue is there again")
    inbox.wait_for(to)


def test_an_alarm_of_rabbitmq_is_a_503(running: Strategy, inbox: Inbox, own: RabbitMq) -> None:
    to = someone()
    own.ctl("set_vm_memory_high_watermark", "0.00001")
    try:
        assert running.send(to).status == 504, "this message is what RabbitMQ answers with its alarm"
        assert running.send(to).status == 503
        assert running.ask("/health").status == 503
    finally:
        own.ctl("set_vm_memory_high_watermark", "0.4")
    wait_until(running.healthy, "the alarm is over")
    assert running.send(to).status == 202
    inbox.wait_for(to, 2)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("amqp://guest:secret@127.0.0.1:{port}/", "does not accept the user or the password"),
        ("amqp://guest:guest@127.0.0.1:{port}/secret-host", "does not give this user the virtual host 'secret-host'"),
        ("amqps://guest:guest@127.0.0.1:{port}/", "cannot be reached: .*SSL"),
        ("amqps://guest:guest@127.0.0.1:{port}/?cafile=/missing.pem", "a file that the URL names"),
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


@pytest.mark.parametrize("setting", ["STEP", "DEMO"])
def test_the_steps_and_the_demonstration_are_not_on_rabbitmq(setting: str, tmp_path: Path) -> None:
    settings = {"QUEUE": "rabbitmq", setting: {"STEP": "pop", "DEMO": "1"}[setting], "DATA_DIR": str(tmp_path)}
    program = Program([sys.executable, "-m", "common.processes.run", "5"], settings | {"PORT": "0"})
    program.wait_for_line("^QUEUE: the steps and the demonstration")
    assert program.process.wait(LIMIT) == 2
    program.stop()
