"""The step of chapter 3: what it loses when its worker or its master is killed, as its card says."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.processes.chapter import chapter_module
from tests.support.programs import Strategy, a_name, running_strategy, someone, wait_until
from tests.support.servers import Inbox

STEPS = chapter_module("3_local_messages.steps").STEPS


@pytest.fixture(scope="module")
def running(inbox: Inbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strategy]:
    settings = {"SMTP_URL": inbox.smtp_url, "STEP": "pass_on", "EMAILS_PER_SECOND": "", "DRAIN_SECONDS": "5"}
    with running_strategy("3_local_messages", tmp_path_factory.mktemp("step"), **settings) as strategy:
        yield strategy


@pytest.fixture
def step(running: Strategy) -> Strategy:
    wait_until(running.healthy, "the worker is ready")
    return running


def send(strategy: Strategy, name: str, count: int = 1) -> list[str]:
    addresses = [f"{name}-{number}@example.com" for number in range(count)]
    assert [strategy.send(to).status for to in addresses] == [202] * count
    return addresses


def send_another(strategy: Strategy, inbox: Inbox) -> None:
    """An email that arrives: the worker that runs now works."""
    [to] = send(strategy, a_name())
    inbox.wait_for(to)


def arrived(inbox: Inbox, addresses: list[str]) -> int:
    return sum(len(inbox.messages(to)) for to in addresses)


def test_the_queue_dies_with_its_worker(step: Strategy, inbox: Inbox) -> None:
    """60 emails: more than the worker sends at a time, so that some wait in its queue."""
    inbox.dial(hang_rate=1)
    lost = send(step, a_name(), 60)
    step.kill("email worker")
    inbox.dial(hang_rate=0)
    wait_until(step.healthy, "another worker is ready")
    send_another(step, inbox)
    assert arrived(inbox, lost) == 0


def test_everything_dies_with_the_master(step: Strategy, inbox: Inbox) -> None:
    inbox.dial(hang_rate=1)
    lost = send(step, a_name(), 3)
    step.kill("master")
    inbox.dial(hang_rate=0)
    wait_until(step.healthy, "it runs again")
    send_another(step, inbox)
    assert arrived(inbox, lost) == 0


def test_without_a_worker_the_master_accepts_nothing(step: Strategy) -> None:
    os.kill(step.pid("email worker"), signal.SIGKILL)
    wait_until(lambda: not step.healthy(), "the master has seen it")
    answer = step.send(someone())
    assert (answer.status, answer.json["error"]["reason"]) == (503, "the email worker does not run")


def test_a_worker_that_gets_sigterm_sends_what_it_holds(step: Strategy, inbox: Inbox) -> None:
    inbox.dial(latency_ms=200)
    addresses = send(step, a_name(), 60)
    step.kill("email worker", number=signal.SIGTERM)
    inbox.dial(latency_ms=0)
    assert arrived(inbox, addresses) == 60


def test_the_worker_retries_and_gives_up_as_in_the_full_design(step: Strategy, inbox: Inbox) -> None:
    inbox.dial(refuse_rate=1, refuse_code=550)
    [to] = send(step, a_name())
    step.program.wait_for_line("gave up <")
    inbox.dial(refuse_rate=0)
    assert not inbox.messages(to)


def test_stats_say_null_for_what_the_step_cannot_know(step: Strategy, inbox: Inbox) -> None:
    restarts = step.stats()["restarts_web_server"]
    send_another(step, inbox)
    step.kill("web server")
    wait_until(step.healthy, "the web server is back")
    stats = step.stats()
    assert {name for name, figure in stats.items() if figure is not None} == {"strategy", "accepted", *STEPS["pass_on"]}
    assert stats["restarts_web_server"] == restarts + 1
    assert {"sent", "failed", "waiting", "in_flight", "oldest_wait_seconds"} <= stats.keys()


def test_it_stops_in_order_and_sends_what_waits(inbox: Inbox, tmp_path: Path) -> None:
    with running_strategy("3_local_messages", tmp_path, SMTP_URL=inbox.smtp_url, STEP="pass_on") as strategy:
        wait_until(strategy.healthy, "the worker is ready")
        inbox.dial(latency_ms=300)
        addresses = send(strategy, a_name(), 30)
    assert arrived(inbox, addresses) == 30
