"""Strategies 4, 5 and 6 with Sentinel: two replicas and three sentinels, started by `make run-N REDIS=sentinel`."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from asynckit.sentinel import read_sentinel_url
from common.services.service import running
from lab.harness.processes import still_alive
from tests.support.load import Load, wait_for_all
from tests.support.programs import LIMIT, Strategy, frozen, running_strategy, someone, wait_until
from tests.support.servers import Inbox

SERVERS = ("primary", "replica-1", "replica-2")
pytestmark = pytest.mark.timeout(360)  # several failovers; a sentinel that gets no CPU for 2 s pauses for 30 s (TILT)


class Topology:
    """The six processes behind a strategy, found by their files."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / "sentinel"

    def pid(self, name: str) -> int:
        return int((self._folder / f"{name}.pid").read_text())

    def service(self) -> int | None:
        """The process that starts the servers."""
        facts = running(self._folder.parent, "sentinel")
        return facts["pid"] if facts else None

    def info(self, name: str) -> dict[str, Any]:
        line = next(line for line in self._configuration(name) if line.startswith("port "))
        with redis.Redis(port=int(line.split()[1]), socket_timeout=1, socket_connect_timeout=1, protocol=2) as client:
            found: dict[str, Any] = client.info("replication")
            return found

    def _configuration(self, name: str) -> list[str]:
        return (self._folder / f"{name}.conf").read_text().splitlines()

    def primary(self) -> str | None:
        """The server that is a primary with at least one replica."""
        for name in SERVERS:
            try:
                facts = self.info(name)
            except redis.exceptions.RedisError:
                continue
            if facts["role"] == "master" and facts["connected_slaves"] > 0:
                return name
        return None

    def settled(self) -> str:
        """Wait until one primary has both replicas; its name."""

        def name() -> str | None:
            found = self.primary()
            return found if found and self.info(found)["connected_slaves"] == 2 else None

        return wait_until(name, "one primary with two replicas", limit=120)


@pytest.fixture(scope="module", params=["5_remote_queue", "6_event_bus"])
def replicated(
    request: pytest.FixtureRequest, inbox: Inbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Strategy, Topology]]:
    """With ACK_REPLICAS=1: a 202 means that a replica has it too."""
    data_dir = tmp_path_factory.mktemp(request.param)
    environment = {"SMTP_URL": inbox.smtp_url, "REDIS": "sentinel", "ACK_REPLICAS": "1", "LEASE_SECONDS": "2"}
    with running_strategy(request.param, data_dir, **environment) as strategy:
        topology = Topology(data_dir)
        topology.settled()
        yield strategy, topology
    assert "Traceback" not in strategy.program.output


def test_a_killed_primary_is_replaced_and_nothing_accepted_is_lost(
    replicated: tuple[Strategy, Topology], inbox: Inbox
) -> None:
    strategy, topology = replicated
    with Load(strategy, someone()) as load:
        for _ in range(2):
            before = topology.settled()
            load.wait_for_more(20)
            os.kill(topology.pid(before), signal.SIGKILL)
            wait_until(lambda before=before: topology.primary() not in (None, before), "a failover", limit=100)  # type: ignore[misc]
            load.wait_for_more(20, limit=100)
    wait_for_all(load, inbox, limit=100)


def test_without_a_replica_in_time_the_answer_is_504(replicated: tuple[Strategy, Topology]) -> None:
    strategy, topology = replicated
    primary = topology.settled()
    replicas = [topology.pid(name) for name in SERVERS if name != primary]
    with frozen(*replicas):
        # On a slow machine the answer of Redis itself may come too late; that is a 504 too, with another reason.
        wait_until(lambda: "0 of 1 replicas" in strategy.reason_of_504(), "the reason names the replicas")
    wait_until(lambda: strategy.send(someone()).status == 202, "replicas acknowledge again", limit=100)


def test_every_process_comes_back_after_a_kill(replicated: tuple[Strategy, Topology]) -> None:
    _, topology = replicated
    topology.settled()
    for name in ("sentinel-1", "sentinel-3"):
        before = topology.pid(name)
        os.kill(before, signal.SIGKILL)
        wait_until(lambda name=name, before=before: topology.pid(name) != before, f"{name} is back")  # type: ignore[misc]


def test_the_process_that_starts_them_comes_back_after_a_kill(replicated: tuple[Strategy, Topology]) -> None:
    """Its servers outlive it. They end, and start with their data under a new process."""
    strategy, topology = replicated
    topology.settled()
    sentinel, service = topology.pid("sentinel-2"), wait_until(topology.service, "the service runs")
    os.kill(service, signal.SIGKILL)
    wait_until(lambda: topology.service() not in (None, service), "the service is back")
    wait_until(lambda: strategy.send(someone()).status == 202, "emails are accepted", limit=100)
    before = topology.pid("sentinel-2")
    assert before != sentinel
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: topology.pid("sentinel-2") != before, "a sentinel is back")


def test_strategy_4_finds_the_primary_too(inbox: Inbox, tmp_path: Path) -> None:
    environment = {"SMTP_URL": inbox.smtp_url, "REDIS": "sentinel"}
    with running_strategy("4_remote_messages", tmp_path, **environment) as strategy:
        topology = Topology(tmp_path)
        before = topology.settled()
        wait_until(strategy.healthy, "a worker is subscribed")
        os.kill(topology.pid(before), signal.SIGKILL)
        wait_until(lambda: topology.primary() not in (None, before), "a failover", limit=100)
        to = someone()
        wait_until(lambda: strategy.send(to).status == 202, "emails are accepted again", limit=100)
        wait_until(lambda: inbox.messages(to), "the worker hears of emails again")


def test_a_second_start_has_the_data_of_the_first(inbox: Inbox, tmp_path: Path) -> None:
    to, down = someone(), "smtp://127.0.0.1:1"
    with running_strategy("5_remote_queue", tmp_path, SMTP_URL=down, REDIS="sentinel") as strategy:
        wait_until(lambda: strategy.send(to).status == 202, "accepted")
        family = strategy.program.descendants()
    assert still_alive(family, LIMIT) == [], "no process is left behind"
    with running_strategy("5_remote_queue", tmp_path, SMTP_URL=inbox.smtp_url, REDIS="sentinel"):
        wait_until(lambda: inbox.messages(to), "the email of the first run is sent")


def test_no_server_is_left_behind_when_the_service_itself_was_killed(inbox: Inbox, tmp_path: Path) -> None:
    with running_strategy("5_remote_queue", tmp_path, SMTP_URL=inbox.smtp_url, REDIS="sentinel"):
        topology = Topology(tmp_path)
        pids = [topology.pid(name) for name in SERVERS]
        os.kill(int((tmp_path / "sentinel.pid").read_text()), signal.SIGKILL)
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), "no server is left")


@pytest.mark.parametrize(
    ("url", "hosts", "service", "primary"),
    [
        ("redis+sentinel://a/s", (("a", 26379),), "s", "redis://a:26379/0"),
        ("redis+sentinel://a:1,b:2/s/3", (("a", 1), ("b", 2)), "s", "redis://a:1/3"),
        ("redis+sentinel://u:p%40@a,[::1]:5/s", (("a", 26379), ("::1", 5)), "s", "redis://u:p%40@a:26379/0"),
        ("rediss+sentinel://a/s?ssl_ca_certs=x", (("a", 26379),), "s", "rediss://a:26379/0?ssl_ca_certs=x"),
    ],
)
def test_a_sentinel_url_is_read(url: str, hosts: tuple[tuple[str, int], ...], service: str, primary: str) -> None:
    found = read_sentinel_url(url)
    assert found is not None
    assert (found.hosts, found.service, found.primary) == (hosts, service, primary)


@pytest.mark.parametrize(
    "url",
    ["redis+sentinel://", "redis+sentinel://a", "redis+sentinel://a/", "redis+sentinel://a:x/s", "redis+sentinel://a/s/x",
     "redis+sentinel://a:0/s", "redis+sentinel://a/s/1/2", "redis+sentinel://u:horse@/s"],
)  # fmt: skip
def test_a_bad_sentinel_url_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="expected redis") as error:
        read_sentinel_url(url)
    assert "horse" not in str(error.value)


def test_a_login_of_the_sentinels_is_their_own() -> None:
    found = read_sentinel_url("redis+sentinel://u:p@a/s?sentinel_username=x&sentinel_password=y")
    assert found is not None
    assert found.options == {"username": "x", "password": "y"}
    assert "sentinel_" not in found.primary
