"""The promises of chapter 6."""

import os
import random
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from common.processes.chapter import chapter_module
from tests.support.event_bus import LOGS, event_bus, settled
from tests.support.load import Load, account
from tests.support.programs import Program, Strategy, a_name, closed_port, freeze, frozen, someone, wait_until
from tests.support.servers import Inbox, Valkey, valkey_of

handlers = chapter_module("6_event_bus.handlers")

KILLS = int(os.environ.get("KILLS", "0"))  # KILLS=100 runs a long test of both logs
WINDOW = 50  # emails in flight in one worker


@contextmanager
def a_worker(inbox: Inbox, data_dir: Path, **environment: str) -> Iterator[Program]:
    """Start a worker as in a second terminal."""
    own = {"SMTP_URL": inbox.smtp_url, "LEASE_SECONDS": "1", "DRAIN_SECONDS": "2", "VALKEY_PORT": "0"}
    program = Program(["make", "run-6"], own | {"DATA_DIR": str(data_dir), "ROLE": "worker"} | environment)
    try:
        program.wait_for_line("consuming as")
        yield program
    finally:
        program.stop()


def audited(valkey: Valkey, domain: str = "example.com") -> int:
    return sum(int(valkey.client.hget(key, domain) or 0) for key in valkey.client.keys("eventlog:audit:*"))


# What an answer means


@pytest.fixture(scope="module", params=LOGS)
def serving(
    request: pytest.FixtureRequest, inbox: Inbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Strategy, Path, str]]:
    """A web server without a worker, its data folder, and its log."""
    data_dir = tmp_path_factory.mktemp("serving")
    with event_bus(inbox, data_dir, ROLE="server", LOG=request.param) as strategy:
        yield strategy, data_dir, request.param


def test_an_email_is_accepted_even_if_no_worker_is_running(serving: tuple[Strategy, Path, str], inbox: Inbox) -> None:
    """The event stays in the log until a worker starts. Strategy 4 needs a worker that listens."""
    strategy, data_dir, log = serving
    to = someone()
    answer = strategy.send(to, "Hello", "x")
    assert (answer.status, answer.json["status"]) == (202, "accepted")
    stats = strategy.stats()
    assert (stats["waiting"], stats["in_flight"], stats["events"]) == (1, 0, 1)
    assert stats["oldest_wait_seconds"] >= 0
    assert inbox.messages(to) == []
    with a_worker(inbox, data_dir, LOG=log):
        [message] = inbox.wait_for(to)
        assert message["message_id"] == answer.json["id"]
        wait_until(lambda: strategy.stats()["sent"] == 1, "it is counted")
    assert strategy.stats()["events"] == 1, "reading removes no event"


@pytest.fixture(scope="module")
def running(inbox: Inbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Strategy, Valkey]]:
    data_dir = tmp_path_factory.mktemp("running")
    with event_bus(inbox, data_dir, ATTEMPTS="2") as strategy:
        yield strategy, valkey_of(data_dir)


def test_a_second_consumer_needs_no_change_of_the_producer(running: tuple[Strategy, Valkey]) -> None:
    strategy, valkey = running
    name, one, two = a_name(), f"{a_name()}.example", f"{a_name()}.example"
    for domain in (one, two, one):
        assert strategy.send(f"{name}@{domain}").status == 202
    wait_until(lambda: audited(valkey, one) == 2, "two emails to the first domain")
    assert audited(valkey, two) == 1
    [key, *_] = valkey.client.keys("eventlog:audit:*")
    assert re.fullmatch(r"eventlog:audit:\{\d{4}-\d\d-\d\dT\d\d\}", str(key))


def test_a_frozen_redis_is_a_504_and_the_email_may_be_sent(running: tuple[Strategy, Valkey], inbox: Inbox) -> None:
    strategy, valkey = running
    to, late = someone(), someone()
    assert strategy.send(someone()).status == 202  # now Redis knows the script
    with frozen(valkey.pid):
        answer = strategy.send(to)
        assert answer.status == 504
        assert "Redis" in answer.json["error"]["reason"]
    wait_until(strategy.healthy, "the server is healthy again")
    assert {message["message_id"] for message in inbox.messages(to)} <= {answer.json["id"]}
    assert strategy.send(late).status == 202
    inbox.wait_for(late)
    assert "Traceback" not in strategy.program.output


# Kills


@pytest.mark.timeout(300 + 20 * KILLS)
@pytest.mark.parametrize("log", LOGS if KILLS else LOGS[:1])
def test_kills_of_everything_under_load_lose_no_event(inbox: Inbox, tmp_path: Path, log: str) -> None:
    """Kills the server, the worker and Redis in random order. Every consumer gets every event."""
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    inbox.dial(latency_ms=20)
    roles = ["worker", "server", "valkey"]
    workers_killed = 0
    with event_bus(inbox, tmp_path, LOG=log, ATTEMPTS="1000") as strategy:
        with Load(strategy, someone(), clients=2) as load:
            for number in range(KILLS or 3):
                role = roles[number] if number < 3 else chance.choice(roles)
                load.wait_for_more(chance.randint(10, 30))
                kill(strategy, role, tmp_path)
                workers_killed += role == "worker"
            load.wait_for_more(20)
        settled(strategy)
        found = account(load, inbox)
        valkey = valkey_of(tmp_path)
        events = strategy.stats()["events"]
        report = f"seed {seed}, {KILLS or 3} kills: {found}, {events} events, audited {audited(valkey)}"
        print(report)
        assert found.lost == 0, report
        assert found.duplicated <= WINDOW * workers_killed, report
        assert found.unexpected == events - found.accepted, f"{report}: only requests whose answer was lost"
        assert audited(valkey) == events, report
        assert strategy.stats()["failed"] == 0
    assert "Traceback" not in strategy.program.output


def kill(strategy: Strategy, role: str, data_dir: Path) -> None:
    """Kill it as soon as it runs again after the kill before."""

    def killed() -> bool:
        with suppress(ProcessLookupError):  # it has not been restarted yet
            os.kill(valkey_of(data_dir).pid if role == "valkey" else strategy.pid(role), signal.SIGKILL)
            return True
        return False

    wait_until(killed, f"the {role} runs")


def test_a_worker_suspended_for_longer_than_its_lease_loses_no_event_and_cannot_commit(
    inbox: Inbox, tmp_path: Path
) -> None:
    to, others = someone(), someone()
    inbox.dial(hang_rate=1)
    with event_bus(inbox, tmp_path) as strategy, ExitStack() as stack:
        assert [strategy.send(to).status for _ in range(10)] == [202] * 10
        wait_until(lambda: strategy.stats()["in_flight"] == 10, "the worker holds them")
        suspended = strategy.pid("worker")
        stack.callback(os.kill, suspended, signal.SIGCONT)
        freeze(suspended)
        inbox.dial(hang_rate=0)
        with a_worker(inbox, tmp_path) as other:
            inbox.wait_for(to, 10)
            wait_until(lambda: len(re.findall("sent <", other.output)) == 10, "the other worker has sent all emails")
            os.kill(suspended, signal.SIGCONT)
            assert [strategy.send(others).status for _ in range(10)] == [202] * 10
            inbox.wait_for(others, 10)
            settled(strategy)
            stats = strategy.stats()
            assert (stats["failed"], stats["waiting"], stats["in_flight"]) == (0, 0, 0)
        assert len(inbox.messages(to)) == len(inbox.messages(others)) == 10


def test_an_event_that_kills_its_workers_is_parked(inbox: Inbox, tmp_path: Path) -> None:
    """The test plays the part of the event and kills the worker that holds it."""
    inbox.dial(hang_rate=1)
    with event_bus(inbox, tmp_path, ATTEMPTS="2") as strategy:
        strategy.send(someone())
        valkey = valkey_of(tmp_path)
        for attempt in (1, 2, 3):  # the third time it is handled alone
            wait_until(lambda attempt=attempt: claims_of_emails(valkey) == [attempt], "a worker holds it")  # type: ignore[misc]
            kill(strategy, "worker", tmp_path)
        wait_until(lambda: strategy.stats()["failed"] == 1, "it is parked")
        strategy.program.wait_for_line(r"email gave up \S+ .*: claimed 3 times and never finished")


def claims_of_emails(valkey: Valkey) -> list[int]:
    """How often each email in flight has been claimed."""
    holders = [valkey.client.hvals(key) for key in valkey.client.keys("eventlog:holders:*:email")]
    return [int(holder.split()[0]) for of_one in holders for holder in of_one]


# Failures of single events


def test_a_refused_email_is_parked_at_once_and_others_are_sent(running: tuple[Strategy, Valkey], inbox: Inbox) -> None:
    strategy, valkey = running
    domain = f"{a_name()}.example"
    refused, later = f"refused@{domain}", f"later@{domain}"
    failed = strategy.stats()["failed"]
    inbox.dial(refuse_rate=1, refuse_code=550)
    assert strategy.send(refused).status == 202
    wait_until(lambda: strategy.stats()["failed"] == failed + 1, "it is parked")
    inbox.dial(refuse_rate=0)
    strategy.send(later)
    inbox.wait_for(later)
    assert inbox.messages(refused) == []
    strategy.program.wait_for_line(r"email gave up \d+-\d+ after 1 attempt\(s\): Refused")
    wait_until(lambda: audited(valkey, domain) == 2, "the audit counts the refused email too")


def test_an_email_that_gets_a_4xx_is_retried_and_parked_after_the_last_attempt(
    running: tuple[Strategy, Valkey], inbox: Inbox
) -> None:
    strategy, _ = running
    before = strategy.stats()
    inbox.dial(refuse_rate=1, refuse_code=451)
    strategy.send(someone())
    wait_until(lambda: strategy.stats()["failed"] == before["failed"] + 1, "it is parked")
    wait_until(lambda: strategy.stats()["retried"] == before["retried"] + 1, "after one more attempt")
    strategy.program.wait_for_line(r"email gave up \d+-\d+ after 2 attempt\(s\): Unavailable")


def test_while_the_mail_server_is_down_the_lag_grows_and_no_attempt_is_counted(inbox: Inbox, tmp_path: Path) -> None:
    with closed_port() as port, event_bus(inbox, tmp_path, SMTP_URL=f"smtp://127.0.0.1:{port}") as strategy:
        assert [strategy.send(someone()).status for _ in range(80)] == [202] * 80
        strategy.program.wait_for_line("pause: Unreachable")
        wait_until(lambda: strategy.stats()["audit_waiting"] == 0, "the audit does not wait for the mail server")
        stats = strategy.stats()
        assert stats["waiting"] + stats["in_flight"] == 80
        assert stats["in_flight"] <= WINDOW
        assert (stats["sent"], stats["failed"], stats["retried"]) == (0, 0, 0)


# Stopping


def test_sigterm_finishes_emails_in_flight_and_gives_back_the_rest_at_once(inbox: Inbox, tmp_path: Path) -> None:
    quick, slow = someone(), someone()
    with event_bus(inbox, tmp_path, ROLE="server") as strategy:
        inbox.dial(latency_ms=5000)
        with a_worker(inbox, tmp_path, DRAIN_SECONDS="10") as worker:
            assert [strategy.send(quick).status for _ in range(5)] == [202] * 5
            wait_until(lambda: strategy.stats()["in_flight"] == 5, "all are in flight")
        assert len(inbox.messages(quick)) == 5, "the worker has finished them before it stopped"
        inbox.dial(latency_ms=0, hang_rate=1)
        with a_worker(inbox, tmp_path, DRAIN_SECONDS="0.2", LEASE_SECONDS="600") as worker:
            assert [strategy.send(slow).status for _ in range(3)] == [202] * 3
            wait_until(lambda: strategy.stats()["in_flight"] == 3, "all are in flight")
        assert "email gave back 3 unfinished" in worker.output
        inbox.dial(hang_rate=0)
        with a_worker(inbox, tmp_path, LEASE_SECONDS="600"):  # it need not wait for the leases to end
            inbox.wait_for(slow, 3)
        assert sum(message["copies"] for message in inbox.messages(slow)) == 3


def test_several_workers_share_the_emails(inbox: Inbox, tmp_path: Path) -> None:
    to = someone()
    with event_bus(inbox, tmp_path, WORKERS="3") as strategy:
        assert [strategy.send(to).status for _ in range(60)] == [202] * 60
        settled(strategy)
        assert [message["copies"] for message in inbox.messages(to)] == [1] * 60
        assert audited(valkey_of(tmp_path)) == 60


# A full Redis refuses new events. Workers must still handle its events, so that the log can be trimmed.


def test_a_full_redis_refuses_emails_and_workers_handle_the_accepted_ones(
    serving: tuple[Strategy, Path, str], inbox: Inbox
) -> None:
    strategy, data_dir, log = serving
    to = someone()
    if log == "streams":  # XGROUP CREATE needs memory, so the consumers must exist before
        with a_worker(inbox, data_dir, LOG=log):
            assert strategy.send(to).status == 202
            settled(strategy)
    assert [strategy.send(to).status for _ in range(3)] == [202] * 3
    valkey = valkey_of(data_dir)
    valkey.client.config_set("maxmemory", "1")
    answer = strategy.send(to)
    assert (answer.status, "maxmemory" in answer.json["error"]["reason"]) == (503, True)
    assert not strategy.healthy()
    with a_worker(inbox, data_dir, LOG=log, LEASE_SECONDS="1"):
        inbox.wait_for(to, 4 if log == "streams" else 3)
        settled(strategy)
    valkey.client.config_set("maxmemory", "0")
    assert strategy.send(to).status == 202
    assert all(message["copies"] == 1 for message in inbox.messages(to))
