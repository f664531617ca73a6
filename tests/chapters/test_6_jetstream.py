"""Strategy 6 on JetStream, in the words of its chapter: LOG=jetstream."""

import json
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest

from common.services.service import running
from eventlog.nats_client import Refused
from tests.support.event_bus import asked, on_jetstream, settled
from tests.support.load import Load, account
from tests.support.programs import LIMIT, Strategy, closed_port, frozen, someone, wait_until
from tests.support.servers import Inbox, nats_of

WINDOW = 50  # emails in flight in a worker
KILLS = int(os.environ.get("KILLS", "0"))  # KILLS=50: a long run


@pytest.fixture(scope="module")
def running_bus(inbox: Inbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Strategy, Path]]:
    """The strategy, and its data folder."""
    data_dir = tmp_path_factory.mktemp("running")
    with on_jetstream(inbox, data_dir, ATTEMPTS="2") as strategy:
        yield strategy, data_dir


@pytest.fixture
def bus(running_bus: tuple[Strategy, Path]) -> Strategy:
    return running_bus[0]


def test_accepted_emails_arrive_and_nothing_starts_redis(running_bus: tuple[Strategy, Path], inbox: Inbox) -> None:
    strategy, data_dir = running_bus
    to = someone()
    answers = [strategy.send(to) for _ in range(20)]
    assert {answer.status for answer in answers} == {202}
    messages = inbox.wait_for(to, 20)
    assert {message["message_id"] for message in messages} == {answer.json["id"] for answer in answers}
    settled(strategy)
    stats = strategy.stats()
    assert (stats["sent"], stats["failed"], stats["events"], stats["retried"]) == (20, 0, 20, None)
    assert strategy.healthy()
    assert strategy.ask("/log/state").json["audit"] == {"example.com": 20}
    assert running(data_dir, "valkey") is None
    strategy.program.wait_for_line("syndication needs Redis and does not run")


# Kills


@pytest.mark.timeout(300 + 30 * KILLS)
def test_kills_of_the_worker_under_load_lose_nothing(inbox: Inbox, tmp_path: Path) -> None:
    inbox.dial(latency_ms=20)
    kills = KILLS or 4
    with on_jetstream(inbox, tmp_path, ATTEMPTS="1000") as strategy:
        with Load(strategy, someone(), clients=2) as load:
            for _ in range(kills):
                load.wait_for_more(random.randint(5, 20))
                strategy.kill("worker")
            load.wait_for_more(20)
        settled(strategy)
        found = account(load, inbox)
        print(f"{kills} kills of the worker: {found}")
        assert (found.lost, found.unexpected) == (0, 0), found
        assert found.duplicated <= WINDOW * kills, found
        assert strategy.stats()["failed"] == 0


@pytest.mark.timeout(300 + 30 * KILLS)
def test_kills_of_the_server_under_load_lose_nothing(inbox: Inbox, tmp_path: Path) -> None:
    inbox.dial(latency_ms=20)
    kills = KILLS or 3
    with on_jetstream(inbox, tmp_path, ATTEMPTS="1000") as strategy:
        with Load(strategy, someone(), clients=2) as load:
            for _ in range(kills):
                load.wait_for_more(random.randint(10, 30))
                kill_nats(tmp_path)
            load.wait_for_more(20)
        settled(strategy)
        found = account(load, inbox)
        print(f"{kills} kills of nats-server: {found}, answers {dict(load.statuses)}")
        assert found.lost == 0, found
        assert found.duplicated <= WINDOW * kills, found
        assert found.unexpected <= load.statuses[504], "only those whose answer was lost"
        assert strategy.stats()["failed"] == 0


def kill_nats(data_dir: Path) -> None:
    """Kill the server, and wait until `make run-6` has started it again."""
    pid = nats_of(data_dir).pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: (facts := running(data_dir, "nats")) and facts["pid"] != pid, "another nats-server")


# Failures of single events


def test_a_refused_email_is_parked_and_can_be_sent_again_from_the_page(bus: Strategy, inbox: Inbox) -> None:
    refused, later, before = someone(), someone(), bus.stats()
    inbox.dial(refuse_rate=1, refuse_code=550)
    assert bus.send(refused).status == 202
    wait_until(lambda: bus.stats()["failed"] == before["failed"] + 1, "it is parked")
    inbox.dial(refuse_rate=0)
    bus.send(later)
    inbox.wait_for(later)
    assert inbox.messages(refused) == []
    assert post(bus, "retry", consumer="email") == {"done": "1 parked events of email will be retried"}
    inbox.wait_for(refused)
    wait_until(lambda: bus.stats()["failed"] == before["failed"], "it is parked no longer")
    assert bus.stats()["sent"] == before["sent"] + 2


def post(strategy: Strategy, what: str, **fields: str) -> Any:
    """What the page /log does at a click."""
    token = strategy.ask("/log").text.partition('data-token="')[2].partition('"')[0]
    request = Request(f"{strategy.url}/log/{what}", urlencode(fields).encode(), {"X-Token": token})
    with urlopen(request, timeout=LIMIT) as response:
        return json.load(response)


def test_not_now_is_asked_again_and_after_attempts_the_email_is_parked(bus: Strategy, inbox: Inbox) -> None:
    failed = bus.stats()["failed"]
    inbox.dial(refuse_rate=1, refuse_code=451)
    bus.send(someone())
    wait_until(lambda: bus.stats()["failed"] == failed + 1, "it is parked")
    bus.program.wait_for_line(r"email gave up 0-\d+ after 2 attempt\(s\): Unavailable")


def test_an_event_that_kills_its_worker_is_parked_in_the_end(inbox: Inbox, tmp_path: Path) -> None:
    inbox.dial(hang_rate=1)
    with on_jetstream(inbox, tmp_path, ATTEMPTS="2") as strategy:
        strategy.send(someone())
        for times in (1, 2, 3):  # the email of a killed worker is in flight until its lease ends
            wait_until(lambda times=times: deliveries(tmp_path) == times, "the worker of this moment holds it")  # type: ignore[misc]
            strategy.kill("worker")
        wait_until(lambda: strategy.stats()["failed"] == 1, "it is parked")
        strategy.program.wait_for_line(r"email gave up 0-1 .*: claimed 3 times and never finished")


def deliveries(data_dir: Path) -> int:
    """How often JetStream has delivered an event to the consumer `email`; 0 before the first worker creates it."""
    try:
        facts = asked(nats_of(data_dir).port, "CONSUMER.INFO.eventlog.email")
    except Refused:
        return 0
    return int(facts["delivered"]["consumer_seq"])


def test_while_the_mail_server_is_down_no_attempt_is_lost_nor_by_a_stop(inbox: Inbox, tmp_path: Path) -> None:
    with closed_port() as port:
        environment = {"SMTP_URL": f"smtp://127.0.0.1:{port}", "ATTEMPTS": "2", "DRAIN_SECONDS": "0.2"}
        with on_jetstream(inbox, tmp_path, **environment) as strategy:
            assert [strategy.send(someone()).status for _ in range(60)] == [202] * 60
            strategy.program.wait_for_line("pause: Unreachable")
            for _ in range(3):
                wait_until(lambda: strategy.stats()["in_flight"] > 0, "some are in flight")
                strategy.kill("worker", number=signal.SIGTERM)
            stats = strategy.stats()
            assert (stats["waiting"] + stats["in_flight"], stats["failed"]) == (60, 0)
            strategy.program.wait_for_line("email gave back [0-9]+ unfinished")


# A server that is down or frozen


def test_a_frozen_server_is_a_504_and_a_killed_one_comes_back(inbox: Inbox, tmp_path: Path) -> None:
    to, doubtful = someone(), someone()
    with on_jetstream(inbox, tmp_path) as strategy:
        assert strategy.send(to).status == 202
        pid = nats_of(tmp_path).pid
        with frozen(pid):
            in_doubt = strategy.send(doubtful)
        assert (in_doubt.status, in_doubt.json["error"]["kind"]) == (504, "NoAnswer")
        assert "NATS" in in_doubt.json["error"]["reason"]
        wait_until(strategy.healthy, "all is well again")
        os.kill(nats_of(tmp_path).pid, signal.SIGKILL)
        assert strategy.send(to).status in (202, 503, 504), "202 if it is back within the time of an append"
        wait_until(strategy.healthy, "it was started again")
        assert strategy.send(to).status == 202
        settled(strategy)
        assert {message["message_id"] for message in inbox.messages(doubtful)} <= {in_doubt.json["id"]}
