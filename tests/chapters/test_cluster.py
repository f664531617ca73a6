"""Strategies 4, 5 and 6 on a Redis Cluster of three primaries and three replicas, by `make run-N REDIS=cluster`."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from common.services.cluster import NODES
from tests.support.programs import Inbox, Strategy, a_name, running_strategy, wait_until

pytestmark = pytest.mark.timeout(300)  # several failovers
SLOTS = 16_384


class Topology:
    """The six nodes behind a strategy, found by their files."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / "cluster"

    def pid(self, name: str) -> int:
        return int((self._folder / f"{name}.pid").read_text())

    def port(self, name: str) -> int:
        lines = (self._folder / f"{name}.conf").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("port ")).split()[1])

    @contextmanager
    def client(self, name: str) -> Iterator[Any]:
        with redis.Redis(port=self.port(name), socket_timeout=1, socket_connect_timeout=1, protocol=2) as client:
            yield client

    def owners(self) -> dict[int, str]:
        """The primary of each slot, as the first node that answers sees it; empty if none answers."""
        names = {self.port(name): name for name in NODES}
        for name in NODES:
            try:
                with self.client(name) as client:
                    ranges = client.execute_command("CLUSTER", "SLOTS")
            except redis.exceptions.RedisError:
                continue
            return {slot: names[row[2][1]] for row in ranges for slot in range(row[0], row[1] + 1)}
        return {}

    def owner(self, key: str) -> str | None:
        return self.owners().get(key_slot(key.encode()))

    def is_settled(self) -> bool:
        """Whether all slots are served, every node answers, and each primary has a replica that follows it."""
        try:
            for name in NODES:
                with self.client(name) as client:
                    facts = client.info("replication")
                    state = client.execute_command("CLUSTER", "INFO").decode()
                if "cluster_state:ok" not in state or "cluster_slots_ok:16384" not in state:
                    return False
                if facts.get("master_link_status") != "up" and facts["connected_slaves"] != 1:
                    return False
        except redis.exceptions.RedisError:
            return False
        return True

    def settle(self) -> None:
        wait_until(self.is_settled, "three primaries with a replica each", limit=120)

    def kill_owner(self, key: str) -> None:
        """Kill the primary that has this key, and wait until its replica has taken over."""
        before = self.owner(key)
        assert before
        os.kill(self.pid(before), signal.SIGKILL)
        wait_until(lambda: self.owner(key) not in (None, before), f"another primary for {key}", limit=100)


class Callers:
    """Four callers that send one email after the other; `accepted` counts the answers 202."""

    def __init__(self, strategy: Strategy, to: str) -> None:
        self.accepted = 0
        self._strategy = strategy
        self._to = to
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                self.accepted += self._strategy.send(self._to).status == 202
            except OSError:
                continue

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, number: int = 50) -> None:
        at = self.accepted
        wait_until(lambda: self.accepted > at + number, "more emails are accepted", limit=100)


def arrived(inbox: Inbox, to: str) -> int:
    return len({message["message_id"] for message in inbox.messages(to)})


Pair = tuple[Strategy, Topology]


@pytest.fixture(scope="module", params=["5_remote_queue", "6_event_bus"])
def clustered(request: pytest.FixtureRequest, inbox: Inbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """With ACK_REPLICAS=1: a 202 means that a replica has it too. A partition of strategy 6 lasts half a second."""
    data_dir = tmp_path_factory.mktemp(request.param)
    environment = {"SMTP_URL": inbox.smtp_url, "REDIS": "cluster", "ACK_REPLICAS": "1", "LEASE_SECONDS": "2"}
    with running_strategy(request.param, data_dir, PARTITION_SECONDS="0.5", **environment) as strategy:
        topology = Topology(data_dir)
        topology.settle()
        yield strategy, topology
        family = strategy.program.descendants()
    wait_until(lambda: not any(process.is_running() for process in family), "no process is left behind", limit=40)
    assert "Traceback" not in strategy.program.output


KEYS = {"5_remote_queue": ["{resque}"], "6_event_bus": ["eventlog:partitions", "{email}"]}


def test_a_killed_primary_is_replaced_and_nothing_accepted_is_lost(clustered: Pair, inbox: Inbox) -> None:
    strategy, topology = clustered
    to = f"{a_name()}@example.com"
    with Callers(strategy, to) as callers:
        for key in KEYS[strategy.name]:
            callers.wait_for_more()
            topology.settle()
            topology.kill_owner(key)
            callers.wait_for_more()
    wait_until(lambda: arrived(inbox, to) >= callers.accepted, "every email has arrived", limit=100)


def test_the_keys_are_on_one_node_in_strategy_5_and_spread_in_strategy_6(clustered: Pair) -> None:
    strategy, topology = clustered
    topology.settle()
    sizes = {}
    for name in set(topology.owners().values()):
        with topology.client(name) as client:
            sizes[name] = client.dbsize()
    assert sum(size > 0 for size in sizes.values()) == (1 if strategy.name == "5_remote_queue" else 3), sizes
