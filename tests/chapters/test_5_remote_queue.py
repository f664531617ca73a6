"""Strategy 5 in the words of its chapter."""

import json
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.load import Load, account
from tests.support.log_lines import at_most_once_a_second
from tests.support.programs import (
    Inbox,
    Program,
    Strategy,
    Valkey,
    a_name,
    is_alive,
    nobody_s_port,
    running_strategy,
    running_valkey,
    until,
    valkey_of,
    wait_until,
)
from tests.support.smtp_peer import smtp_peer

KILLS = int(os.environ.get("KILLS", "3"))  # of each kind; KILLS=100 takes half an hour
CLIENTS = 4 if KILLS < 10 else 1  # the inbox must be able to count them all
SLOTS = 50  # the most emails that a worker has in its hands
LEASE = "1"  # seconds
NO_ANSWER = "Redis does not answer in time"

QUEUE = "resque:queue:emailQueue"
FAILED = "resque:failed"
PAUSED = "resque:py:paused:emailQueue"


def someone() -> str:
    return f"{a_name()}@example.com"


@pytest.fixture
def clean(valkey: Valkey) -> Valkey:
    valkey.client.flushall()
    return valkey


@contextmanager
def queue(inbox: Inbox, valkey: Valkey, tmp_path: Path, **environment: str) -> Iterator[Strategy]:
    addresses = {"SMTP_URL": inbox.smtp_url, "REDIS_URL": valkey.url, "DRAIN_SECONDS": "2", "LEASE_SECONDS": LEASE}
    with running_strategy("5_remote_queue", tmp_path, **(addresses | environment)) as strategy:
        yield strategy


def a_worker(inbox: Inbox, valkey: Valkey, tmp_path: Path, **environment: str) -> AbstractContextManager[Program]:
    return another("worker", inbox, valkey, tmp_path, **environment)


@contextmanager
def another(role: str, inbox: Inbox, valkey: Valkey, tmp_path: Path, **environment: str) -> Iterator[Program]:
    """A process of this role in a terminal of its own."""
    addresses = {"SMTP_URL": inbox.smtp_url, "REDIS_URL": valkey.url, "DATA_DIR": str(tmp_path), "LEASE_SECONDS": LEASE}
    program = Program(["make", "run-5"], addresses | {"ROLE": role, "DRAIN_SECONDS": "2"} | environment)
    try:
        program.wait_for_line("ready to")
        yield program
    finally:
        program.stop()


def failed(valkey: Valkey) -> list[dict[str, Any]]:
    return [json.loads(str(record)) for record in valkey.client.lrange(FAILED, 0, -1)]


def workers(strategy: Strategy) -> list[int]:
    """The pids of the worker processes that run."""
    found = []
    for process in strategy.program.descendants():
        with suppress(psutil.NoSuchProcess):  # it has just ended
            if is_alive(process) and process.cmdline()[-1:] == ["worker"]:
                found.append(process.pid)
    return found


def two_that_are_ready(strategy: Strategy) -> list[int] | None:
    running, ready = (
        workers(strategy),
        re.findall(r"^\[worker @ (\d+)\] .*ready", strategy.program.output, re.MULTILINE),
    )
    return running if len(running) == 2 and set(running) <= set(map(int, ready)) else None


def settled(strategy: Strategy) -> bool:
    """Nothing waits, and nothing is in anybody's hands: twice, for a job may pass by one look from here to there."""
    return strategy.held() == 0 == strategy.held()


def test_an_email_waits_in_redis_until_a_worker_comes(inbox: Inbox, clean: Valkey, tmp_path: Path) -> None:
    """What strategy 4 answers with a 503."""
    to = someone()
    with queue(inbox, clean, tmp_path, ROLE="server") as strategy:
        answer = strategy.send(to)
        assert (answer.status, answer.json["status"]) == (202, "accepted")
        [raw] = clean.client.lrange(QUEUE, 0, -1)
        arguments = {"to": to, "subject": "Hello", "text": "How are you?", "id": answer.json["id"]}
        assert json.loads(str(raw)) == {"class": "sendEmail", "queue": "emailQueue", "args": [arguments]}
        stats = strategy.stats()
        assert (stats["waiting"], stats["in_flight"], stats["sent"], stats["workers"]) == (1, 0, 0, 0)
        assert stats["oldest_wait_seconds"] > 0
        with a_worker(inbox, clean, tmp_path):
            [message] = inbox.wait_for(to)
            assert message["message_id"] == answer.json["id"]
            wait_until(lambda: settled(strategy), "it is acknowledged")
            assert (strategy.stats()["sent"], strategy.stats()["workers"]) == (1, 1)


def test_two_workers_send_each_email_once(inbox: Inbox, clean: Valkey, tmp_path: Path) -> None:
    """What strategy 4 sends twice."""
    to = someone()
    with queue(inbox, clean, tmp_path, WORKERS="2") as strategy:
        wait_until(lambda: strategy.stats()["workers"] == 2, "two workers")
        assert [strategy.send(to).status for _ in range(40)] == [202] * 40
        wait_until(lambda: settled(strategy), "all are sent")
    assert [message["copies"] for message in inbox.messages(to)] == [1] * 40


def test_a_killed_server_loses_nothing(inbox: Inbox, clean: Valkey, tmp_path: Path) -> None:
    to = someone()
    with queue(inbox, clean, tmp_path) as strategy:
        with Load(strategy, to, CLIENTS) as load:
            for _ in range(KILLS):
                load.wait_for_more(10)
                strategy.kill("server")
                wait_until(strategy.healthy, "the server is back")
        wait_until(lambda: settled(strategy), "all are sent")
    found = account(load, inbox)
    assert (found.lost, found.duplicated) == (0, 0)


def test_killed_workers_lose_nothing_and_double_at_most_what_was_in_flight(
    inbox: Inbox, clean: Valkey, tmp_path: Path
) -> None:
    to = someone()
    inbox.dial(latency_ms=50)  # so that there is always something in flight
    with queue(inbox, clean, tmp_path, WORKERS="2") as strategy:
        with Load(strategy, to, CLIENTS) as load:
            for kill in range(KILLS):
                running = wait_until(lambda: two_that_are_ready(strategy), "both workers run")
                wait_until(lambda: strategy.stats()["in_flight"], "something is in flight")
                load.wait_for_more(5)
                os.kill(running[kill % 2], signal.SIGKILL)
        wait_until(lambda: settled(strategy), "all are sent")
        crashed = strategy.stats()["crashed"]
    found = account(load, inbox)
    assert (found.lost, failed(clean)) == (0, [])
    assert found.duplicated <= crashed <= KILLS * SLOTS
    assert crashed > 0, "the kills hit something"


def test_another_worker_begins_again_what_a_dead_worker_held(inbox: Inbox, clean: Valkey, tmp_path: Path) -> None:
    to = someone()
    inbox.dial(hang_rate=1)
    with queue(inbox, clean, tmp_path) as strategy:
        assert [strategy.send(to).status for _ in range(SLOTS)] == [202] * SLOTS
        wait_until(lambda: strategy.stats()["in_flight"] == SLOTS, "all are in flight")
        with a_worker(inbox, clean, tmp_path):
            os.kill(strategy.pid("worker"), signal.SIGKILL)
            inbox.dial(hang_rate=0)
            wait_until(lambda: strategy.stats()["crashed"] == SLOTS, "all are back")
            inbox.wait_for(to, SLOTS)


def test_a_killed_redis_loses_nothing(inbox: Inbox, tmp_path: Path) -> None:
    """The embedded one: append-only file, appendfsync always. It comes back on its port, and the others find it."""
    to = someone()
    environment = {"SMTP_URL": inbox.smtp_url, "LEASE_SECONDS": "5", "DRAIN_SECONDS": "2"}
    with running_strategy("5_remote_queue", tmp_path, **environment) as strategy:
        with Load(strategy, to, CLIENTS) as load:
            for _ in range(KILLS):
                load.wait_for_more(10)
                before = valkey_of(tmp_path).pid
                os.kill(before, signal.SIGKILL)
                wait_until(lambda before=before: valkey_of(tmp_path).pid != before, "there is another Valkey")  # type: ignore[misc]
                wait_until(strategy.healthy, "and it takes emails")
        wait_until(lambda: strategy.healthy() and settled(strategy), "all are sent")
        output = strategy.program.output
    found = account(load, inbox)
    assert found.lost == 0
    assert found.duplicated <= KILLS * SLOTS
    assert load.statuses[503] > 0, "while it was away, the server said so"
    assert "Traceback" not in output


@contextmanager
def keeping_sink(port: int, path: Path) -> Iterator[Program]:
    sink = Program([sys.executable, "-m", "tests.support.keeping_sink", str(port), str(path)], {})
    try:
        sink.wait_for_line("listening")
        yield sink
    finally:
        sink.stop(signal.SIGKILL)


@pytest.fixture
def mail_port() -> Iterator[int]:
    """Where the mail server is when there is one."""
    with nobody_s_port() as port:
        yield port


def test_a_killed_mail_server_loses_nothing(clean: Valkey, mail_port: int, tmp_path: Path) -> None:
    to, port, kept = someone(), mail_port, tmp_path / "kept"
    addresses = {"SMTP_URL": f"smtp://127.0.0.1:{port}", "REDIS_URL": clean.url}
    with running_strategy("5_remote_queue", tmp_path, **addresses) as strategy:
        with Load(strategy, to, CLIENTS) as load:
            for _ in range(KILLS):
                with keeping_sink(port, kept):
                    size = kept.stat().st_size
                    wait_until(lambda size=size: kept.stat().st_size > size, "emails arrive")  # type: ignore[misc]
                load.wait_for_more(5)  # with nobody there
        with keeping_sink(port, kept):
            wait_until(lambda: settled(strategy), "all are sent")
        assert "pause: " in strategy.program.output
    arrived = kept.read_text().split()
    given_up = {record["payload"]["args"][0]["id"] for record in failed(clean)}
    assert set(load.accepted) == set(arrived) | given_up
    assert len(given_up) < len(arrived) / 10, "only whose every attempt met a kill"
    assert len(arrived) - len(set(arrived)) <= KILLS * SLOTS


def test_an_outage_of_the_mail_server_costs_no_attempt(clean: Valkey, mail_port: int, tmp_path: Path) -> None:
    to, port, kept = someone(), mail_port, tmp_path / "kept"
    addresses = {"SMTP_URL": f"smtp://127.0.0.1:{port}", "REDIS_URL": clean.url}
    with running_strategy("5_remote_queue", tmp_path, **addresses, ATTEMPTS="1") as strategy:
        accepted = [strategy.send(to).json["id"] for _ in range(20)]
        strategy.program.wait_for_line("pause: ")
        with keeping_sink(port, kept):
            wait_until(lambda: settled(strategy), "all are sent")
        assert sorted(kept.read_text().split()) == sorted(accepted)
        assert strategy.stats()["retried"] == 0


def test_a_worker_that_was_stopped_for_longer_than_its_lease_commits_for_nobody(
    inbox: Inbox, clean: Valkey, tmp_path: Path
) -> None:
    to = someone()
    inbox.dial(hang_rate=1)
    with queue(inbox, clean, tmp_path) as strategy:
        assert [strategy.send(to).status for _ in range(10)] == [202] * 10
        wait_until(lambda: strategy.stats()["in_flight"] == 10, "all are in flight")
        stopped = strategy.pid("worker")
        os.kill(stopped, signal.SIGSTOP)
        try:
            inbox.dial(hang_rate=0)
            with a_worker(inbox, clean, tmp_path):
                wait_until(lambda: strategy.stats()["crashed"] >= 10, "its jobs are back in the queue")
                wait_until(lambda: len(inbox.messages(to)) == 10, "the other one sends them")
                os.kill(stopped, signal.SIGCONT)
                strategy.program.wait_for_line("the lease has ended")
                strategy.program.wait_for_line(r"ready to send, as \S+\n(.*\n)*.*ready to send, as \S+")
        finally:
            os.kill(stopped, signal.SIGCONT)
        last = someone()
        assert strategy.send(last).status == 202
        inbox.wait_for(last)
        wait_until(lambda: settled(strategy), "all are acknowledged")
        assert strategy.stats()["sent"] == 11
        assert failed(clean) == []


def test_sigterm_loses_nothing_doubles_nothing_and_ends_in_time(inbox: Inbox, clean: Valkey, tmp_path: Path) -> None:
    to = someone()
    inbox.dial(latency_ms=500)
    with queue(inbox, clean, tmp_path, DRAIN_SECONDS="10") as strategy:
        with a_worker(inbox, clean, tmp_path, DRAIN_SECONDS="10") as worker:
            clean.client.set(PAUSED, "until all are there")
            accepted = [strategy.send(to) for _ in range(80)]
            clean.client.delete(PAUSED)
            wait_until(lambda: strategy.stats()["in_flight"] > 10, "both are at work")
            before = time.monotonic()
            worker.process.send_signal(signal.SIGTERM)
            worker.process.wait(20)
            assert time.monotonic() - before < 10 + 5, "DRAIN_SECONDS, and what it takes to end"
        wait_until(lambda: settled(strategy), "the other one sends the rest")
        assert strategy.stats()["crashed"] == 0, "nobody had to wait for a lease"
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


def is_put_off(stats: dict[str, Any]) -> bool:
    return bool(stats["retried"] >= 1 and stats["waiting"] == stats["delayed"] == 1)


def test_a_4xx_is_tried_again_and_a_5xx_is_not(inbox: Inbox, clean: Valkey, tmp_path: Path) -> None:
    busy, unknown = someone(), someone()
    with queue(inbox, clean, tmp_path, ATTEMPTS="5") as strategy:
        inbox.dial(refuse_rate=1, refuse_code=550)
        strategy.send(unknown)
        [record] = wait_until(lambda: failed(clean), "it is in the failed list")
        assert (record["exception"], record["payload"]["args"][0]["to"]) == ("Refused", unknown)
        inbox.dial(refuse_rate=1, refuse_code=451)
        answer = strategy.send(busy)
        wait_until(lambda: is_put_off(strategy.stats()), "it is to be tried again")
        inbox.dial(refuse_rate=0)
        [message] = inbox.wait_for(busy)
        assert message["message_id"] == answer.json["id"]
        wait_until(lambda: settled(strategy), "it is acknowledged")
        assert len(failed(clean)) == 1
        assert "scheduler" not in strategy.program.output  # the worker has promoted the delayed job


async def test_a_login_that_fails_pauses_the_queue_and_says_so(clean: Valkey, tmp_path: Path) -> None:
    to = someone()
    async with smtp_peer() as peer:
        peer.extensions += ["AUTH PLAIN"]
        peer.replies["AUTH"] = b"535 no such user"
        url = f"smtp://user:not-this-one@127.0.0.1:{peer.port}"
        environment = {"SMTP_URL": url, "REDIS_URL": clean.url, "DRAIN_SECONDS": "1", "LEASE_SECONDS": LEASE}
        with running_strategy("5_remote_queue", tmp_path, **environment) as strategy:
            import asyncio

            assert (await asyncio.to_thread(strategy.send, to)).status == 202
            await until(lambda: clean.client.get(PAUSED))
            stats = await asyncio.to_thread(strategy.stats)
            assert stats["paused"].startswith("LoginFailed: ")
            peer.replies["AUTH"] = b"235 welcome"
            await until(lambda: peer.messages)
            await until(lambda: clean.client.get(PAUSED) is None)
            assert failed(clean) == [], "it has cost no attempt"
        assert "not-this-one" not in strategy.program.output + json.dumps(stats)


def test_all_workers_share_one_throttle(inbox: Inbox, clean: Valkey, tmp_path: Path) -> None:
    to = someone()
    with queue(inbox, clean, tmp_path, WORKERS="2", EMAILS_PER_SECOND="10") as strategy:
        before = time.monotonic()
        assert [strategy.send(to).status for _ in range(15)] == [202] * 15
        inbox.wait_for(to, 15)
        assert time.monotonic() - before >= 14 / 10 - 0.15


def test_a_frozen_redis_is_a_504_and_afterwards_it_goes_on(inbox: Inbox, tmp_path: Path) -> None:
    to = someone()
    with running_valkey(tmp_path / "own") as valkey, queue(inbox, valkey, tmp_path) as strategy:
        assert strategy.send(someone()).status == 202  # from then on Redis knows the script
        os.kill(valkey.pid, signal.SIGSTOP)
        try:
            answer = strategy.send(to)
            assert answer.status == 504
            assert answer.json["error"]["reason"] == "Redis does not answer in time: the email may still be sent"
            assert not strategy.healthy()
        finally:
            os.kill(valkey.pid, signal.SIGCONT)
        wait_until(strategy.healthy, "it is back")
        [message] = inbox.wait_for(to)
        assert message["message_id"] == answer.json["id"]
        later = someone()
        assert strategy.send(later).status == 202
        inbox.wait_for(later)


def test_a_redis_that_refuses_connections_is_a_503(inbox: Inbox, tmp_path: Path) -> None:
    with running_valkey(tmp_path / "own") as valkey, queue(inbox, valkey, tmp_path, ROLE="server") as strategy:
        assert strategy.send(someone()).status == 202
        os.kill(valkey.pid, signal.SIGSTOP)  # its supervisor is not to start another
        with suppress(psutil.NoSuchProcess):
            psutil.Process(valkey.pid).kill()
        answer = wait_until(lambda: found if (found := strategy.send(someone())).status == 503 else None, "a 503")
        assert answer.headers["Retry-After"] == "1"
        assert "id" not in answer.json


def test_an_outage_of_redis_longer_than_the_lease_is_nobody_s_crash(inbox: Inbox, tmp_path: Path) -> None:
    to = someone()
    inbox.dial(hang_rate=1)
    more = {"WORKERS": "2", "LEASE_SECONDS": "3", "DRAIN_SECONDS": "0.2"}
    with running_valkey(tmp_path / "own") as valkey, queue(inbox, valkey, tmp_path, **more) as strategy:
        wait_until(lambda: strategy.stats()["workers"] == 2, "two workers")
        assert [strategy.send(to).status for _ in range(10)] == [202] * 10
        wait_until(lambda: strategy.stats()["in_flight"] == 10, "all are in flight")
        os.kill(valkey.pid, signal.SIGSTOP)
        try:  # the first of these lines comes after two seconds, the others at least a second apart: after the lease
            wait_until(lambda: all(complaints(strategy, pid) >= 3 for pid in workers(strategy)), "both have noticed")
        finally:
            os.kill(valkey.pid, signal.SIGCONT)
        wait_until(strategy.healthy, "it is back")

        def is_over() -> bool:
            looked, first = valkey.client.hmget("resque:py:reaping", ["looked", "from"])
            return first is not None and int(str(looked)) > int(first)

        wait_until(is_over, "the dead are looked for again")
        stats = strategy.stats()
        assert (stats["in_flight"], stats["waiting"], stats["crashed"]) == (10, 0, 0)
    assert "the lease has ended" not in strategy.program.output
    at_most_once_a_second(strategy.program.output, NO_ANSWER)


def complaints(strategy: Strategy, worker: int) -> int:
    return len(re.findall(rf"^\[worker @ {worker}\] .*{NO_ANSWER}", strategy.program.output, re.MULTILINE))


def test_a_full_redis_takes_no_emails_and_is_worked_off(inbox: Inbox, tmp_path: Path) -> None:
    to = someone()
    with running_valkey(tmp_path / "own") as valkey, queue(inbox, valkey, tmp_path, ROLE="server") as strategy:
        assert strategy.send(to).status == 202
        valkey.client.config_set("maxmemory", "1")
        answer = strategy.send(to)
        assert answer.status == 503
        assert "maxmemory" in answer.json["error"]["reason"]
        assert not strategy.healthy()
        with a_worker(inbox, valkey, tmp_path):
            inbox.wait_for(to)
            wait_until(lambda: settled(strategy), "it is acknowledged")
        valkey.client.config_set("maxmemory", "0")
        assert strategy.send(to).status == 202
        assert valkey.client.llen(QUEUE) == 1


def test_rubbish_in_the_queue_ends_in_the_failed_list(inbox: Inbox, clean: Valkey, tmp_path: Path) -> None:
    to = someone()
    bad = {"to": "a@b.example, evil@x.example", "subject": "x", "text": "x"}
    rubbish = ["rubbish", json.dumps({"class": "sendEmail", "args": [bad]}), json.dumps({"class": "rm", "args": []})]
    with queue(inbox, clean, tmp_path) as strategy:
        clean.client.rpush(QUEUE, *rubbish, json.dumps({"class": "sendEmail", "args": [bad | {"to": to}]}))
        inbox.wait_for(to)
        wait_until(lambda: len(failed(clean)) == 3, "the others are set aside")
        assert sorted(record["exception"] for record in failed(clean)) == ["BadEmail", "BadJob", "UnknownClass"]
    assert "Traceback" not in strategy.program.output


def test_emails_of_other_programs_and_of_schedules_need_no_message_id(
    inbox: Inbox, clean: Valkey, tmp_path: Path
) -> None:
    """A foreign id is data, and each firing of a schedule is an email of its own."""
    to, regular = someone(), someone()
    with queue(inbox, clean, tmp_path) as strategy, another("scheduler", inbox, clean, tmp_path):
        for more in ({}, {"id": "abc123"}, {"id": 5}, {"id": 1.5}, {"id": [1]}):
            job = {"class": "sendEmail", "args": [{"to": to, "subject": "s", "text": "t", **more}]}
            clean.client.rpush("resque:queue:emailQueue", json.dumps(job))
        names: dict[str, dict[str, str]] = {"plain": {}, "with an id": {"id": "<a@b.example>"}}
        for name, more in names.items():
            args = [{"to": regular, "subject": name, "text": "t", **more}]
            schedule = {"every": "1s", "class": "sendEmail", "queue": "emailQueue", "args": args}
            clean.client.hset("resque:persistent_schedules", name, json.dumps(schedule))
        wait_until(lambda: len(inbox.messages(to)) == 5, "all jobs are sent")
        wait_until(
            lambda: min(Counter(m["subject"] for m in inbox.messages(regular))[name] for name in names) >= 2,
            "each schedule has fired twice",
        )
        assert not failed(clean)
        assert strategy.stats()["failed"] == 0
    for address in (to, regular):
        ids = [message["message_id"] for message in inbox.messages(address)]
        assert len(set(ids)) == len(ids)


def test_redis_settings_that_could_lose_something_are_said_at_the_start(inbox: Inbox, tmp_path: Path) -> None:
    with running_valkey(tmp_path / "own") as valkey:
        valkey.client.config_set("appendfsync", "everysec")
        with queue(inbox, valkey, tmp_path) as strategy:
            strategy.program.wait_for_line("Redis may lose what it has accepted: appendfsync is everysec")


def test_the_demonstration_shows_the_slots_and_ends_when_somebody_has_seen_enough(tmp_path: Path) -> None:
    """It takes half a minute to its end."""
    environment = {
        "DEMO": "1",
        "DATA_DIR": str(tmp_path),
        "VALKEY_PORT": "0",
        "INBOX_PORT": "0",
        "INBOX_SMTP_PORT": "0",
    }
    program = Program(["make", "run-5"], environment)
    try:
        program.wait_for_line("500 jobs that sleep 1 s and 10 that compute for 1 s, all on the event loop")
        program.wait_for_line(r"slots +\d+ █+·+ delay +\d+ ms")
    finally:
        program.stop()
    assert "killing it" not in program.output
