"""Strategy 6 on JetStream, in the words of its chapter: LOG=jetstream."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

import pytest
import trustme

from common.services.service import running
from eventlog.nats_client import Nats
from tests.support.event_bus import event_bus, settled, someone
from tests.support.load import Load, account
from tests.support.programs import (
    LIMIT,
    ROOT,
    Inbox,
    Program,
    Strategy,
    clean_environment,
    free_ports,
    nats_of,
    nobody_s_port,
    wait_until,
)

NATS_SERVER = str(ROOT / ".venv" / "bin" / "nats-server")
WINDOW = 50  # emails in flight in a worker
KILLS = int(os.environ.get("KILLS", "0"))  # KILLS=50: a long run


@contextmanager
def on_jetstream(inbox: Inbox, data_dir: Path, **environment: str) -> Iterator[Strategy]:
    with event_bus(inbox, data_dir, **{"LOG": "jetstream", **environment}) as strategy:
        yield strategy
    assert "Traceback" not in strategy.program.output


def test_accepted_emails_arrive_and_nothing_starts_redis(inbox: Inbox, tmp_path: Path) -> None:
    to = someone()
    with on_jetstream(inbox, tmp_path) as strategy:
        answers = [strategy.send(to) for _ in range(20)]
        assert {answer.status for answer in answers} == {202}
        messages = inbox.wait_for(to, 20)
        assert {message["message_id"] for message in messages} == {answer.json["id"] for answer in answers}
        settled(strategy)
        stats = strategy.stats()
        assert (stats["sent"], stats["failed"], stats["events"], stats["retried"]) == (20, 0, 20, None)
        assert strategy.healthy()
        assert strategy.ask("/log/state").json["audit"] == {"example.com": 20}
        assert running(tmp_path, "valkey") is None
        strategy.program.wait_for_line("syndication needs Redis and does not run")


# Kills


@pytest.mark.timeout(300 + 30 * KILLS)
def test_ten_kills_of_the_worker_under_load_lose_nothing(inbox: Inbox, tmp_path: Path) -> None:
    inbox.dial(latency_ms=20)
    kills = KILLS or 10
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
def test_five_kills_of_the_server_under_load_lose_nothing(inbox: Inbox, tmp_path: Path) -> None:
    inbox.dial(latency_ms=20)
    kills = KILLS or 5
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


def test_a_refused_email_is_parked_and_can_be_sent_again_from_the_page(inbox: Inbox, tmp_path: Path) -> None:
    refused, later = someone(), someone()
    with on_jetstream(inbox, tmp_path) as strategy:
        inbox.dial(refuse_rate=1, refuse_code=550)
        assert strategy.send(refused).status == 202
        wait_until(lambda: strategy.stats()["failed"] == 1, "it is parked")
        inbox.dial(refuse_rate=0)
        strategy.send(later)
        inbox.wait_for(later)
        assert inbox.messages(refused) == []
        assert post(strategy, "retry", consumer="email") == {"done": "1 parked events of email will be retried"}
        inbox.wait_for(refused)
        wait_until(lambda: strategy.stats()["failed"] == 0, "it is parked no longer")
        assert strategy.stats()["sent"] == 2


def post(strategy: Strategy, what: str, **fields: str) -> Any:
    """What the page /log does at a click."""
    token = strategy.ask("/log").text.partition('data-token="')[2].partition('"')[0]
    request = Request(f"{strategy.url}/log/{what}", urlencode(fields).encode(), {"X-Token": token})
    with urlopen(request, timeout=LIMIT) as response:
        return json.load(response)


def test_not_now_is_asked_again_and_after_attempts_the_email_is_parked(inbox: Inbox, tmp_path: Path) -> None:
    with on_jetstream(inbox, tmp_path, ATTEMPTS="2") as strategy:
        inbox.dial(refuse_rate=1, refuse_code=451)
        strategy.send(someone())
        wait_until(lambda: strategy.stats()["failed"] == 1, "it is parked")
        strategy.program.wait_for_line(r"email gave up 0-1 after 2 attempt\(s\): Unavailable")


def test_an_event_that_kills_its_worker_is_parked_in_the_end(inbox: Inbox, tmp_path: Path) -> None:
    inbox.dial(hang_rate=1)
    with on_jetstream(inbox, tmp_path, ATTEMPTS="2") as strategy:
        strategy.send(someone())
        for _ in range(3):
            wait_until(lambda: strategy.stats()["in_flight"] == 1, "it is in flight")
            time.sleep(1.5)  # longer than the lease: the worker of this moment holds it
            strategy.kill("worker")
        wait_until(lambda: strategy.stats()["failed"] == 1, "it is parked")
        strategy.program.wait_for_line(r"email gave up 0-1 .*: claimed 3 times and never finished")


def test_while_the_mail_server_is_down_no_attempt_is_lost_nor_by_a_stop(inbox: Inbox, tmp_path: Path) -> None:
    with nobody_s_port() as port:
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
        os.kill(pid, signal.SIGSTOP)
        try:
            in_doubt = strategy.send(doubtful)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert (in_doubt.status, in_doubt.json["error"]["kind"]) == (504, "NoAnswer")
        assert "NATS" in in_doubt.json["error"]["reason"]
        wait_until(strategy.healthy, "all is well again")
        os.kill(nats_of(tmp_path).pid, signal.SIGKILL)
        assert strategy.send(to).status in (202, 503, 504), "202 if it is back within the time of an append"
        wait_until(strategy.healthy, "it was started again")
        assert strategy.send(to).status == 202
        settled(strategy)
        assert {message["message_id"] for message in inbox.messages(doubtful)} <= {in_doubt.json["id"]}


# A server of your own


@contextmanager
def own_nats(tmp_path: Path, *options: str) -> Iterator[int]:
    """A nats-server as a reader has it at work, started by hand; its port."""
    with nobody_s_port() as port:
        pass
    where = ["-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(tmp_path / "own")]
    program = Program([NATS_SERVER, *where, *options], {})
    try:
        program.wait_for_line("Server is ready")
        yield port
    finally:
        program.stop()


@contextmanager
def cluster(tmp_path: Path) -> Iterator[list[tuple[int, Program]]]:
    """Three nodes, each with its port."""
    ports = free_ports(6)
    routes = ",".join(f"nats://127.0.0.1:{port}" for port in ports[3:])
    with ExitStack() as stack:
        nodes = []
        for number, port in enumerate(ports[:3]):
            route = f"nats://127.0.0.1:{ports[3 + number]}"
            names = ["--cluster_name", "c", "-n", f"n{number}", "-sd", str(tmp_path / f"node{number}")]
            where = ["-a", "127.0.0.1", "-p", str(port), "--cluster", route, "--routes", routes]
            node = Program([NATS_SERVER, "-js", *names, *where], {})
            stack.callback(node.stop)
            nodes.append((port, node))
        nodes[0][1].wait_for_line("JetStream cluster new metadata leader|new consumer leader|Self is new JetStream")
        yield nodes


def leader(port: int) -> int:
    """The number of the node that takes the events."""

    async def ask() -> Any:
        async with Nats(f"nats://127.0.0.1:{port}") as nats:
            return await nats.api("STREAM.INFO.eventlog")

    return int(asyncio.run(ask())["cluster"]["leader"].removeprefix("n"))


@pytest.mark.timeout(120)
def test_the_leader_of_three_nodes_is_killed_under_load_and_nothing_is_lost(inbox: Inbox, tmp_path: Path) -> None:
    with cluster(tmp_path) as nodes:
        url = ",".join(f"nats://127.0.0.1:{port}" for port, _ in nodes)
        with on_jetstream(inbox, tmp_path, NATS_URL=url, NATS_REPLICAS="3") as strategy:
            wait_until(strategy.healthy, "the cluster has a leader")
            with Load(strategy, someone(), clients=2) as load:
                load.wait_for_more(20)
                nodes[leader(nodes[0][0])][1].process.kill()
                killed = time.monotonic()
                load.wait_for_more(20)
                back = time.monotonic() - killed
            settled(strategy)
            found = account(load, inbox)
            print(
                f"the leader of three nodes killed: {found}, answers {dict(load.statuses)}, 20 more after {back:.1f} s"
            )
            assert found.lost == 0, found
            assert found.duplicated <= WINDOW, found


PASSWORD = "a@b:/c?"
IN_URL = quote(PASSWORD, safe="")


@pytest.mark.parametrize(
    ("options", "login"),
    [(["--user", "jo", "--pass", PASSWORD], f"jo:{IN_URL}@"), (["--auth", PASSWORD], f"{IN_URL}@")],
    ids=["password", "token"],
)
def test_nats_url_leads_to_a_server_of_your_own(inbox: Inbox, tmp_path: Path, options: list[str], login: str) -> None:
    to = someone()
    with own_nats(tmp_path, *options) as port:
        with on_jetstream(inbox, tmp_path, NATS_URL=f"nats://{login}127.0.0.1:{port}") as strategy:
            assert strategy.send(to).status == 202
            inbox.wait_for(to)
            assert running(tmp_path, "nats") is None, "the embedded one is not started"
        wrong = refused_start(tmp_path, f"nats://jo:secret@127.0.0.1:{port}")
        assert wrong == "NATS_URL: NATS refuses the login"


def test_a_server_with_tls(inbox: Inbox, tmp_path: Path) -> None:
    authority, to = trustme.CA(), someone()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    options = ["--tls", "--tlscert", str(tmp_path / "cert.pem"), "--tlskey", str(tmp_path / "key.pem")]
    with own_nats(tmp_path, *options) as port:
        trusted = {"SSL_CERT_FILE": str(tmp_path / "ca.pem")}
        with on_jetstream(inbox, tmp_path, NATS_URL=f"tls://localhost:{port}", **trusted) as strategy:
            assert strategy.send(to).status == 202
            inbox.wait_for(to)


def refused_start(tmp_path: Path, url: str) -> str:
    """The only line of a server that does not start."""
    environment = clean_environment() | {"LOG": "jetstream", "NATS_URL": url, "PORT": "0", "DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "6_event_bus", "server"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 2, done.stderr
    return done.stderr.splitlines()[-1]


def test_a_server_that_cannot_be_reached_is_one_line_and_a_503_until_it_is_there(inbox: Inbox, tmp_path: Path) -> None:
    environment = {"LOG": "jetstream", "ROLE": "server"}
    with (
        nobody_s_port() as port,
        event_bus(inbox, tmp_path, NATS_URL=f"nats://127.0.0.1:{port}", **environment) as strategy,
    ):
        strategy.program.wait_for_line("NATS: cannot connect")
        assert strategy.send(someone()).status == 503
        assert not strategy.healthy()
        assert strategy.stats()["waiting"] is None


@pytest.mark.parametrize("url", ["http://x", "nats://:4222", "nats://x:0", "nats://x:y", "nats://a,redis://b"])
def test_a_bad_url_is_one_line_that_does_not_repeat_it(tmp_path: Path, url: str) -> None:
    assert refused_start(tmp_path, url).startswith("NATS_URL: ")
    assert url not in refused_start(tmp_path, url)
