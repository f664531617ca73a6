"""The promises of chapter 1."""

import os
import signal
import threading
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.support.programs import Answer, Strategy, running_strategy, someone, wait_until
from tests.support.servers import Inbox, running_inbox

LIMITS = {"SMTP_SEND_SECONDS": "5", "SMTP_CONNECT_SECONDS": "5"}


@pytest.fixture(scope="module")
def foreground(inbox: Inbox, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    data_dir = tmp_path_factory.mktemp("foreground")
    with running_strategy("1_foreground", data_dir, SMTP_URL=inbox.smtp_url) as strategy:
        yield strategy


def test_a_caller_waits_for_the_mail_server_and_not_for_other_callers(foreground: Strategy, inbox: Inbox) -> None:
    """Ten emails are in flight at the same time, although the mail server has answered none of them."""
    inbox.dial(latency_ms=10_000)
    answers: list[Answer] = []
    callers = start_callers(foreground, 10, answers)
    wait_until(lambda: foreground.stats()["in_flight"] == 10, "ten open requests")
    assert answers == []
    for caller in callers:
        caller.join()
    assert [answer.status for answer in answers] == [200] * 10


@pytest.mark.parametrize(
    ("faults", "status", "kind"),
    [
        ({"refuse_rate": 1, "refuse_code": 550}, 502, "Refused"),
        ({"refuse_rate": 1, "refuse_code": 451}, 503, "Unavailable"),
        ({"refuse_rate": 1, "refuse_code": 421}, 503, "SessionLost"),
        ({"lose_reply_rate": 1}, 504, "InDoubt"),
    ],
)
def test_the_caller_learns_what_the_mail_server_did(
    foreground: Strategy, inbox: Inbox, faults: dict[str, float], status: int, kind: str
) -> None:
    inbox.dial(**faults)
    check_error(foreground, status, kind)


def test_the_caller_learns_that_the_mail_server_does_not_answer(inbox: Inbox, tmp_path: Path) -> None:
    inbox.dial(hang_rate=1)
    with running_strategy("1_foreground", tmp_path, SMTP_URL=inbox.smtp_url, SMTP_SEND_SECONDS="1") as strategy:
        check_error(strategy, 504, "InDoubt")


def check_error(strategy: Strategy, status: int, kind: str) -> None:
    before = strategy.stats()
    answer = strategy.send(someone())
    assert answer.status == status
    assert answer.json["error"]["kind"] == kind
    assert set(answer.json) == {"email", "id", "error"}
    after = strategy.stats()
    assert after["failed"] == before["failed"] + 1
    assert (after["accepted"], after["sent"]) == (before["accepted"], before["sent"])


def test_after_a_504_the_email_may_have_arrived(foreground: Strategy, inbox: Inbox) -> None:
    inbox.dial(lose_reply_rate=1)
    to = someone()
    answer = foreground.send(to)
    assert answer.status == 504
    assert "broke" in answer.json["error"]["reason"], "the connection was cut, and the server notices it at once"
    assert inbox.wait_for(to)[0]["message_id"] == answer.json["id"]


def test_the_first_request_after_a_restart_of_the_mail_server_succeeds(tmp_path: Path) -> None:
    with running_inbox(tmp_path / "inbox") as inbox:
        ports = {"INBOX_SMTP_PORT": str(inbox.smtp_port), "INBOX_PORT": inbox.url.rpartition(":")[2]}
        with running_strategy("1_foreground", tmp_path, SMTP_URL=inbox.smtp_url, **LIMITS) as strategy:
            assert {answer.status for answer in at_once(strategy, 10)} == {200}  # ten sessions are open now
            os.kill(inbox.pid, signal.SIGKILL)
            wait_until(lambda: strategy.send(someone()).status == 503, "the mail server is down")
            answers = at_once(strategy, 10)
            assert {answer.status for answer in answers} <= {502, 503, 504}
            assert strategy.ask("/health").status == 503
            with running_inbox(tmp_path / "again", **ports):
                assert strategy.send(someone()).status == 200
                assert strategy.ask("/health").status == 200


def test_a_killed_mail_server_makes_no_request_hang_and_every_200_has_arrived(
    tmp_path: Path,
) -> None:
    """The mail server is killed with SIGKILL and started again."""
    to, stop = someone(), threading.Event()
    answers: list[tuple[bool, Answer]] = []  # whether the mail server was back before the request, the answer
    is_back = threading.Event()
    with running_inbox(tmp_path / "inbox") as inbox:
        ports = {"INBOX_SMTP_PORT": str(inbox.smtp_port), "INBOX_PORT": inbox.url.rpartition(":")[2]}
        with running_strategy("1_foreground", tmp_path, SMTP_URL=inbox.smtp_url, **LIMITS) as strategy:

            def load() -> None:
                while not stop.is_set():
                    asked_afterwards = is_back.is_set()
                    answers.append((asked_afterwards, strategy.send(to)))  # raises when no answer comes

            threads = [threading.Thread(target=load) for _ in range(8)]
            for thread in threads:
                thread.start()
            try:
                wait_until(lambda: len(answers) > 50, "traffic")
                kept = {message["message_id"] for message in inbox.messages(to)}
                os.kill(inbox.pid, signal.SIGKILL)
                killed = len(answers)
                wait_until(lambda: len(answers) > killed + 50, "traffic without a mail server")
                with running_inbox(tmp_path / "again", **ports) as back:
                    is_back.set()
                    returned = len(answers)
                    wait_until(lambda: len(answers) > returned + 50, "traffic after its return")
                    stop.set()
                    for thread in threads:
                        thread.join()
                    kept_again = {message["message_id"] for message in back.messages(to)}
            finally:
                stop.set()
                for thread in threads:
                    thread.join()
            assert {answer.status for _, answer in answers} <= {200, 502, 503, 504}
            afterwards = [answer for asked_afterwards, answer in answers if asked_afterwards]
            assert {answer.status for answer in afterwards} == {200}
            assert {answer.json["id"] for answer in afterwards} <= kept_again
            assert kept <= {answer.json["id"] for _, answer in answers}


def test_a_killed_server_has_lost_no_answered_email_and_open_requests_fail(inbox: Inbox, tmp_path: Path) -> None:
    with running_strategy("1_foreground", tmp_path, SMTP_URL=inbox.smtp_url) as strategy:
        to, unanswered = someone(), list[Exception]()

        def call() -> None:
            try:
                strategy.send(to)
            except (OSError, HTTPException) as error:
                unanswered.append(error)

        answered = {strategy.send(to).json["id"] for _ in range(5)}
        inbox.dial(hang_rate=1)
        callers = [threading.Thread(target=call) for _ in range(3)]
        for caller in callers:
            caller.start()
        wait_until(lambda: strategy.stats()["in_flight"] == 3, "three open requests")
        os.kill(strategy.pid(), signal.SIGKILL)
        for caller in callers:
            caller.join()
        assert len(unanswered) == 3
        inbox.dial(hang_rate=0)
        wait_until(strategy.healthy, "another server")
        assert strategy.stats()["accepted"] == 0
        assert {message["message_id"] for message in inbox.messages(to)} == answered


def test_sigterm_finishes_the_open_requests(inbox: Inbox, tmp_path: Path) -> None:
    inbox.dial(latency_ms=6000)
    with running_strategy("1_foreground", tmp_path, SMTP_URL=inbox.smtp_url) as strategy:
        answers: list[Answer] = []
        to = someone()
        caller = threading.Thread(target=lambda: answers.append(strategy.send(to)))
        caller.start()
        wait_until(lambda: strategy.stats()["in_flight"] == 1, "an open request")
        strategy.program.stop()
        caller.join()
    assert [answer.status for answer in answers] == [200]
    inbox.wait_for(to)


def at_once(strategy: Strategy, count: int) -> list[Answer]:
    """Send `count` requests at the same time."""
    answers: list[Answer] = []
    for caller in start_callers(strategy, count, answers):
        caller.join()
    assert len(answers) == count
    return answers


def start_callers(strategy: Strategy, count: int, answers: list[Answer]) -> list[threading.Thread]:
    """Start threads that send one request each and add its answer to `answers`."""
    callers = [threading.Thread(target=lambda: answers.append(strategy.send(someone()))) for _ in range(count)]
    for caller in callers:
        caller.start()
    return callers
