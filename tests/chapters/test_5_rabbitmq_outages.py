"""Strategy 5 on the embedded RabbitMQ, while that is killed or frozen."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.load import Load, account, wait_for_all
from tests.support.programs import Strategy, someone, wait_until
from tests.support.rabbitmq import INSTALLED, REASON, WINDOW, queue, rabbitmq_of
from tests.support.servers import Inbox

pytestmark = pytest.mark.skipif(not INSTALLED, reason=REASON)
BROKER_KILLS = 1  # and one more in each of two other tests
BACK_SECONDS = 60.0  # for RabbitMQ, after a kill


@pytest.fixture(scope="module")
def embedded(inbox: Inbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Strategy, Path]]:
    """The strategy on the RabbitMQ that its runner starts, and its data folder."""
    data_dir = tmp_path_factory.mktemp("embedded")
    with queue(inbox, data_dir) as strategy:
        yield strategy, data_dir


def test_a_killed_rabbitmq_loses_nothing(embedded: tuple[Strategy, Path], inbox: Inbox) -> None:
    """It comes back on its port, and the others find it."""
    strategy, data_dir = embedded
    inbox.dial(latency_ms=50)
    with Load(strategy, someone(), clients=2) as load:
        for _ in range(BROKER_KILLS):
            load.wait_for_more(10)
            before = rabbitmq_of(data_dir).pid
            os.kill(before, signal.SIGKILL)
            wait_until(lambda before=before: rabbitmq_of(data_dir).pid != before, "another", BACK_SECONDS)  # type: ignore[misc]
            wait_until(strategy.healthy, "it accepts emails", BACK_SECONDS)
    wait_for_all(load, inbox)
    wait_until(lambda: strategy.program.output.count("ready to send") > BROKER_KILLS, "the worker says that it is back")
    found = account(load, inbox)
    assert found.lost == 0
    assert found.duplicated <= BROKER_KILLS * WINDOW
    assert load.statuses[503] > 0, "while it was down, the server said so"
    assert set(load.statuses) <= {202, 503, 504}


def test_a_worker_does_not_send_again_what_it_could_not_acknowledge(
    embedded: tuple[Strategy, Path], inbox: Inbox
) -> None:
    strategy, data_dir = embedded
    to, last = someone(), someone()
    inbox.dial(latency_ms=5000)  # the inbox has each email at once, and says so later
    assert [strategy.send(to).status for _ in range(5)] == [202] * 5
    inbox.wait_for(to, 5)
    os.kill(rabbitmq_of(data_dir).pid, signal.SIGKILL)
    wait_until(strategy.healthy, "RabbitMQ is back", BACK_SECONDS)
    inbox.dial(latency_ms=0)
    wait_until(lambda: strategy.send(last).status == 202, "it accepts another one")
    inbox.wait_for(last)
    assert [message["copies"] for message in inbox.messages(to)] == [1] * 5


def test_a_frozen_rabbitmq_is_a_504_and_a_dead_one_a_503(embedded: tuple[Strategy, Path], inbox: Inbox) -> None:
    strategy, data_dir = embedded
    pid, first, last = rabbitmq_of(data_dir).pid, someone(), someone()
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
    assert strategy.send(last).status == 202
    inbox.wait_for(last)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: strategy.send(someone()).status == 503, "it is down")
    answer = strategy.send(someone())
    assert answer.headers["Retry-After"] == "1"
    assert "id" not in answer.json
