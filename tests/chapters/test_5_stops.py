"""Strategy 5: workers that are killed, frozen or stopped."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.load import Load, account
from tests.support.programs import Strategy, frozen, someone, wait_until
from tests.support.queue_workers import workers
from tests.support.remote_queue import CLIENTS, KILLS, PAUSED, QUEUE, SLOTS, a_worker, failed, queue, settled
from tests.support.servers import Inbox, Valkey


@pytest.fixture(scope="module")
def running(inbox: Inbox, another: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strategy]:
    with queue(inbox, another, tmp_path_factory.mktemp("running"), ATTEMPTS="5") as strategy:
        yield strategy
    assert "Traceback" not in strategy.program.output


def two_that_are_ready(strategy: Strategy) -> list[int] | None:
    running, ready = (
        workers(strategy),
        re.findall(r"^\[worker @ (\d+)\] .*ready", strategy.program.output, re.MULTILINE),
    )
    return running if len(running) == 2 and set(running) <= set(map(int, ready)) else None


def with_a_job(strategy: Strategy, valkey: Valkey) -> list[int]:
    """The workers that have a job at the moment."""
    names = [str(key) for key in valkey.client.keys("resque:worker:*:emailQueue")]
    return [pid for pid in workers(strategy) if any(f":{pid}+" in name for name in names)]


def test_killed_workers_lose_nothing_and_double_at_most_what_was_in_flight(
    inbox: Inbox, clean: Valkey, tmp_path: Path
) -> None:
    to = someone()
    inbox.dial(latency_ms=200)  # so that a job is still in flight when its worker is killed
    with queue(inbox, clean, tmp_path, WORKERS="2") as strategy:
        with Load(strategy, to, CLIENTS) as load:
            for _ in range(KILLS):
                wait_until(lambda: two_that_are_ready(strategy), "both workers run")
                load.wait_for_more(5)
                busy = wait_until(lambda: with_a_job(strategy, clean), "a worker has a job")
                os.kill(busy[0], signal.SIGKILL)
        wait_until(lambda: settled(strategy), "all are sent")
        crashed = strategy.stats()["crashed"]
    found = account(load, inbox)
    assert (found.lost, failed(clean)) == (0, [])
    assert found.duplicated <= crashed <= KILLS * SLOTS
    assert crashed > 0, "the kills hit something"


def test_another_worker_begins_again_what_a_dead_worker_held(
    running: Strategy, inbox: Inbox, another: Valkey, tmp_path: Path
) -> None:
    to, crashed = someone(), running.stats()["crashed"]
    inbox.dial(hang_rate=1)
    assert [running.send(to).status for _ in range(SLOTS)] == [202] * SLOTS
    wait_until(lambda: running.stats()["in_flight"] == SLOTS, "all are in flight")
    with a_worker(inbox, another, tmp_path):
        os.kill(running.pid("worker"), signal.SIGKILL)
        inbox.dial(hang_rate=0)
        wait_until(lambda: running.stats()["crashed"] == crashed + SLOTS, "all are back")
        inbox.wait_for(to, SLOTS)
    wait_until(lambda: settled(running), "all are acknowledged")


def test_a_worker_that_was_stopped_for_longer_than_its_lease_commits_nothing(
    running: Strategy, inbox: Inbox, another: Valkey, tmp_path: Path
) -> None:
    to, last = someone(), someone()
    before, starts = running.stats(), len(re.findall("ready to send, as", running.program.output))
    inbox.dial(hang_rate=1)
    assert [running.send(to).status for _ in range(10)] == [202] * 10
    wait_until(lambda: running.stats()["in_flight"] == 10, "all are in flight")
    stopped = running.pid("worker")
    with frozen(stopped):
        inbox.dial(hang_rate=0)
        with a_worker(inbox, another, tmp_path):
            wait_until(lambda: running.stats()["crashed"] >= before["crashed"] + 10, "its jobs are back in the queue")
            wait_until(lambda: len(inbox.messages(to)) == 10, "the other one sends them")
            os.kill(stopped, signal.SIGCONT)
            running.program.wait_for_line(rf"^\[worker @ {stopped}\] .*the lease has ended")
            wait_until(lambda: len(re.findall("ready to send, as", running.program.output)) > starts, "it begins again")
    assert running.send(last).status == 202
    inbox.wait_for(last)
    wait_until(lambda: settled(running), "all are acknowledged")
    assert running.stats()["sent"] == before["sent"] + 11
    assert running.stats()["failed"] == before["failed"]


def test_sigterm_loses_nothing_and_duplicates_nothing(inbox: Inbox, clean: Valkey, tmp_path: Path) -> None:
    to = someone()
    inbox.dial(latency_ms=3000)
    with queue(inbox, clean, tmp_path, DRAIN_SECONDS="10") as strategy:
        with a_worker(inbox, clean, tmp_path, DRAIN_SECONDS="10") as worker:
            clean.client.set(PAUSED, "until all are there")
            accepted = [strategy.send(to) for _ in range(80)]
            clean.client.delete(PAUSED)
            wait_until(lambda: strategy.stats()["in_flight"] > 10, "both are at work")
            worker.stop()
        wait_until(lambda: settled(strategy), "the other one sends the rest")
        assert strategy.stats()["crashed"] == 0, "no job had to wait for a lease"
    messages = inbox.messages(to)
    assert {message["message_id"] for message in messages} == {answer.json["id"] for answer in accepted}
    assert {message["copies"] for message in messages} == {1}


def test_what_cannot_be_finished_in_time_goes_back_at_once(inbox: Inbox, clean: Valkey, tmp_path: Path) -> None:
    to = someone()
    inbox.dial(hang_rate=1)
    with queue(inbox, clean, tmp_path, ROLE="server") as strategy:
        with a_worker(inbox, clean, tmp_path, DRAIN_SECONDS="0.2"):
            assert [strategy.send(to).status for _ in range(5)] == [202] * 5
            wait_until(lambda: strategy.stats()["in_flight"] == 5, "all are in flight")
        assert clean.client.llen(QUEUE) == 5
        inbox.dial(hang_rate=0)
        with a_worker(inbox, clean, tmp_path):
            inbox.wait_for(to, 5)
