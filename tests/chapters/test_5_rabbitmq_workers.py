"""Strategy 5 on RabbitMQ: several workers, and workers that are stopped."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.programs import nobody_s_port, wait_until
from tests.support.rabbitmq import (
    FAILED,
    INSTALLED,
    REASON,
    RabbitMq,
    a_worker,
    queue,
    running_rabbitmq,
    someone,
)
from tests.support.servers import Inbox

pytestmark = pytest.mark.skipif(not INSTALLED, reason=REASON)


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMq]:
    with running_rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as rabbitmq:
        yield rabbitmq


@pytest.fixture
def clean(rabbitmq: RabbitMq) -> RabbitMq:
    rabbitmq.empty()
    return rabbitmq


def test_a_throttled_worker_sends_one_email_and_the_others_stay_in_the_queue(
    inbox: Inbox, clean: RabbitMq, tmp_path: Path
) -> None:
    """At one email in 1,000 seconds, the second one is due long after the stop."""
    to = someone()
    with queue(inbox, tmp_path, clean, EMAILS_PER_SECOND="0.001", DRAIN_SECONDS="0.2") as strategy:
        assert [strategy.send(to).status for _ in range(8)] == [202] * 8
        inbox.wait_for(to)
    assert len(inbox.messages(to)) == 1
    wait_until(lambda: clean.count() == 7, "the others are back in the queue")


def test_two_workers_share_the_throttle(inbox: Inbox, clean: RabbitMq, tmp_path: Path) -> None:
    """When one of them is stopped, the whole limit belongs to the other one."""
    to = someone()
    with a_worker(inbox, tmp_path, clean, EMAILS_PER_SECOND="0.002") as stays:
        with a_worker(inbox, tmp_path / "b", clean, EMAILS_PER_SECOND="0.002", DRAIN_SECONDS="0.2") as leaves:
            for worker in (stays, leaves):
                worker.wait_for_line("at most 0.001 emails per second, as one of 2 workers that share a limit of 0.002")
            with queue(inbox, tmp_path / "c", clean, ROLE="server") as strategy:
                assert [strategy.send(to).status for _ in range(6)] == [202] * 6
            wait_until(lambda: len(inbox.messages(to)) == 2, "each of them sends its first email at once")
        stays.wait_for_line("at most 0.002 emails per second, as one of 1 workers")
    wait_until(lambda: clean.count() == 4, "the others are back in the queue")


def test_two_workers_share_the_emails(inbox: Inbox, clean: RabbitMq, tmp_path: Path) -> None:
    to = someone()
    with queue(inbox, tmp_path, clean, WORKERS="2") as strategy:
        wait_until(lambda: strategy.stats()["workers"] == 2, "two workers")
        assert [strategy.send(to).status for _ in range(40)] == [202] * 40
        inbox.wait_for(to, 40)
    assert [message["copies"] for message in inbox.messages(to)] == [1] * 40


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
