"""Strategy 5 without its Redis or its mail server: killed, frozen, full, or down."""

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.support.load import Load, account
from tests.support.log_lines import at_most_once_a_second
from tests.support.programs import (
    Program,
    Strategy,
    closed_port,
    freeze,
    frozen,
    running_strategy,
    someone,
    until,
    wait_until,
)
from tests.support.queue_workers import workers
from tests.support.remote_queue import CLIENTS, KILLS, LEASE, PAUSED, QUEUE, SLOTS, a_worker, failed, queue, settled
from tests.support.servers import Inbox, Valkey, running_valkey, valkey_of
from tests.support.smtp_peer import smtp_peer

NO_ANSWER = "Redis does not answer in time"


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
    with closed_port() as port:
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
                load.wait_for_more(5)  # without a mail server
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


def test_an_outage_of_redis_longer_than_the_lease_is_not_a_crash(inbox: Inbox, tmp_path: Path) -> None:
    to = someone()
    inbox.dial(hang_rate=1)
    more = {"WORKERS": "2", "LEASE_SECONDS": "3", "DRAIN_SECONDS": "0.2"}
    with running_valkey(tmp_path / "own") as valkey, queue(inbox, valkey, tmp_path, **more) as strategy:
        wait_until(lambda: strategy.stats()["workers"] == 2, "two workers")
        assert [strategy.send(to).status for _ in range(10)] == [202] * 10
        wait_until(lambda: strategy.stats()["in_flight"] == 10, "all are in flight")
        # The first of these lines comes after two seconds, the others at least a second apart: after the lease.
        with frozen(valkey.pid):
            wait_until(lambda: all(complaints(strategy, pid) >= 3 for pid in workers(strategy)), "both have noticed")
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


def test_a_full_redis_and_one_that_refuses_connections_are_a_503(inbox: Inbox, tmp_path: Path) -> None:
    """The jobs of a full Redis are processed nevertheless."""
    to = someone()
    with running_valkey(tmp_path / "own") as valkey:
        valkey.client.config_set("appendfsync", "everysec")
        with queue(inbox, valkey, tmp_path, ROLE="server") as strategy:
            strategy.program.wait_for_line("Redis may lose what it has accepted: appendfsync is everysec")
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
            freeze(valkey.pid)  # its supervisor is not to start another
            with suppress(psutil.NoSuchProcess):
                psutil.Process(valkey.pid).kill()
            answer = wait_until(lambda: found if (found := strategy.send(someone())).status == 503 else None, "a 503")
            assert answer.headers["Retry-After"] == "1"
            assert "id" not in answer.json
