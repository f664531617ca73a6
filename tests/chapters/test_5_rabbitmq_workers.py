"""Strategy 5 on RabbitMQ: several workers, and workers that are stopped."""

from pathlib import Path

import pytest

from tests.support.programs import closed_port, someone, wait_until
from tests.support.rabbitmq import FAILED, INSTALLED, REASON, RabbitMq, a_worker, queue
from tests.support.servers import Inbox

pytestmark = pytest.mark.skipif(not INSTALLED, reason=REASON)


def test_a_throttled_worker_sends_one_email_and_the_others_stay_in_the_queue(
    inbox: Inbox, empty: RabbitMq, tmp_path: Path
) -> None:
    """At one email in 1,000 seconds, the second one is due long after the stop."""
    to = someone()
    with queue(inbox, tmp_path, empty, EMAILS_PER_SECOND="0.001", DRAIN_SECONDS="0.2") as strategy:
        assert [strategy.send(to).status for _ in range(8)] == [202] * 8
        inbox.wait_for(to)
    assert len(inbox.messages(to)) == 1
    wait_until(lambda: empty.count() == 7, "the others are back in the queue")


def test_two_workers_share_the_throttle(inbox: Inbox, empty: RabbitMq, tmp_path: Path) -> None:
    """When one of them is stopped, the whole limit belongs to the other one."""
    to = someone()
    with a_worker(inbox, tmp_path, empty, EMAILS_PER_SECOND="0.002") as stays:
        with a_worker(inbox, tmp_path / "b", empty, EMAILS_PER_SECOND="0.002", DRAIN_SECONDS="0.2") as leaves:
            for worker in (stays, leaves):
                worker.wait_for_line("at most 0.001 emails per second, as one of 2 workers that share a limit of 0.002")
            with queue(inbox, tmp_path / "c", empty, ROLE="server") as strategy:
                assert [strategy.send(to).status for _ in range(6)] == [202] * 6
            wait_until(lambda: len(inbox.messages(to)) == 2, "each of them sends its first email at once")
        stays.wait_for_line("at most 0.002 emails per second, as one of 1 workers")
    wait_until(lambda: empty.count() == 4, "the others are back in the queue")


def test_two_workers_share_the_emails(inbox: Inbox, empty: RabbitMq, tmp_path: Path) -> None:
    to = someone()
    with queue(inbox, tmp_path, empty, WORKERS="2") as strategy:
        wait_until(lambda: strategy.stats()["workers"] == 2, "two workers")
        assert [strategy.send(to).status for _ in range(40)] == [202] * 40
        inbox.wait_for(to, 40)
    assert [message["copies"] for message in inbox.messages(to)] == [1] * 40


def test_an_outage_of_the_mail_server_costs_no_attempt(inbox: Inbox, empty: RabbitMq, tmp_path: Path) -> None:
    to = someone()
    with closed_port() as port:
        wrong = {"SMTP_URL": f"smtp://127.0.0.1:{port}", "ATTEMPTS": "1"}
        with queue(inbox, tmp_path, empty, **wrong) as strategy:
            assert [strategy.send(to).status for _ in range(5)] == [202] * 5
            strategy.program.wait_for_line("pause: ")
    assert empty.count(FAILED) == 0
    with a_worker(inbox, tmp_path, empty):
        inbox.wait_for(to, 5)


def test_sigterm_loses_nothing_and_duplicates_nothing(inbox: Inbox, empty: RabbitMq, tmp_path: Path) -> None:
    to = someone()
    inbox.dial(latency_ms=300)
    with queue(inbox, tmp_path, empty, ROLE="server") as strategy:
        accepted = {strategy.send(to).json["id"] for _ in range(80)}
        with a_worker(inbox, tmp_path, empty, DRAIN_SECONDS="10"):
            wait_until(lambda: inbox.messages(to), "it is at work")
        with a_worker(inbox, tmp_path, empty, DRAIN_SECONDS="10"):
            inbox.wait_for(to, 80)
    messages = inbox.messages(to)
    assert {message["message_id"] for message in messages} == accepted
    assert {message["copies"] for message in messages} == {1}


def test_what_cannot_be_finished_in_time_goes_back_at_once(inbox: Inbox, empty: RabbitMq, tmp_path: Path) -> None:
    to = someone()
    inbox.dial(hang_rate=1)
    with queue(inbox, tmp_path, empty, ROLE="server") as strategy:
        with a_worker(inbox, tmp_path, empty, DRAIN_SECONDS="0.2"):
            assert [strategy.send(to).status for _ in range(5)] == [202] * 5
            wait_until(lambda: empty.count() == 0, "all are in flight")
        wait_until(lambda: empty.count() == 5, "all are back")
        inbox.dial(hang_rate=0)
        with a_worker(inbox, tmp_path, empty):
            inbox.wait_for(to, 5)
