"""Strategies 4, 5 and 6 on a Redis Cluster of three primaries and three replicas, by `make run-N REDIS=cluster`."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from redis.crc import key_slot

from common.services.cluster import NODES
from lab.harness.slots import Cluster
from tests.support.load import Load, wait_for_all
from tests.support.programs import (
    Answer,
    Program,
    Strategy,
    email_path,
    frozen,
    running_strategy,
    someone,
    wait_until,
)
from tests.support.servers import Inbox

pytestmark = pytest.mark.timeout(300)  # several failovers
FAILOVER_SECONDS = 100.0


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

    @contextmanager
    def cluster(self) -> Iterator[Cluster]:
        with ExitStack() as stack:
            ports = [self.port(name) for name in NODES]
            clients = [stack.enter_context(redis.Redis(port=port, protocol=2, decode_responses=True)) for port in ports]
            yield Cluster(ports, clients)

    def kill_owner(self, key: str) -> None:
        """Kill the primary that has this key, and wait until its replica has taken over."""
        before = self.owner(key)
        assert before

        def taken_over() -> bool:
            return self.owner(key) not in (None, before)

        for _ in range(5):  # on a busy machine it may be started again before the others notice
            pid = self.pid(before)
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: taken_over() or self.pid(before) != pid, "a change", limit=100)  # type: ignore[misc]
            if taken_over():
                return
        raise AssertionError(f"no other primary for {key}")


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
    to = someone()
    with Load(strategy, to) as load:
        for key in KEYS[strategy.name]:
            load.wait_for_more(50, FAILOVER_SECONDS)
            topology.settle()
            topology.kill_owner(key)
            load.wait_for_more(50, FAILOVER_SECONDS)
    wait_for_all(load, inbox, FAILOVER_SECONDS)


def test_the_keys_are_on_one_node_in_strategy_5_and_spread_in_strategy_6(clustered: Pair) -> None:
    strategy, topology = clustered
    topology.settle()
    sizes = {}
    for name in set(topology.owners().values()):
        with topology.client(name) as client:
            sizes[name] = client.dbsize()
    assert sum(size > 0 for size in sizes.values()) == (1 if strategy.name == "5_remote_queue" else 3), sizes


def test_nothing_is_lost_while_slots_move(clustered: Pair, inbox: Inbox) -> None:
    strategy, topology = clustered
    topology.settle()
    to = someone()
    with topology.cluster() as cluster, Load(strategy, to) as load:
        for key in KEYS[strategy.name]:
            for move in (cluster.move_at_once, lambda key: cluster.move(key).run()):
                load.wait_for_more(20, FAILOVER_SECONDS)
                move(key)
        load.wait_for_more(20, FAILOVER_SECONDS)
    wait_for_all(load, inbox, FAILOVER_SECONDS)


def test_pages_and_commands_work(clustered: Pair) -> None:
    strategy, _ = clustered
    with Load(strategy, someone()) as load:
        load.wait_for_more(1)
    wait_until(lambda: strategy.held() == 0, "every email is handled", limit=60)
    assert strategy.stats()["sent"] > 0
    url = strategy.program.wait_for_line(r"(redis\+cluster://\S+)")[1]
    commands = {
        "5_remote_queue": ("/resque", ["5_remote_queue.commands", "doctor"], "no problems found"),
        "6_event_bus": ("/log", ["6_event_bus.consumers"], "audit: 0 waiting"),
    }
    page, words, line = commands[strategy.name]
    assert strategy.ask(page).status == 200
    program = Program([sys.executable, "-m", *words], {"REDIS_URL": url})
    program.wait_for_line(line)
    program.stop()


def test_without_a_replica_in_time_the_answer_is_504(clustered: Pair) -> None:
    strategy, topology = clustered
    topology.settle()
    primaries = set(topology.owners().values())
    with frozen(*[topology.pid(name) for name in NODES if name not in primaries]):
        # On a slow machine the answer of Redis itself may come too late; that is a 504 too, with another reason.
        wait_until(lambda: "0 of 1 replicas" in strategy.reason_of_504(), "the reason names the replicas")
    wait_until(lambda: strategy.send(someone()).status == 202, "replicas acknowledge again", limit=100)


def test_strategy_4_counts_all_workers_and_finds_the_channel_again(inbox: Inbox, tmp_path: Path) -> None:
    environment = {"SMTP_URL": inbox.smtp_url, "REDIS": "cluster", "WORKERS": "2"}
    with running_strategy("4_remote_messages", tmp_path, **environment) as strategy:
        topology = Topology(tmp_path)
        topology.settle()
        for change in (move_at_once, Topology.kill_owner):
            wait_until(lambda: strategy.stats()["workers"] == 2, "both workers are subscribed", limit=60)
            to = someone()
            assert strategy.send(to).status == 202
            wait_until(lambda to=to: copies(inbox, to) == 2, "each worker sends a copy")  # type: ignore[misc]
            answer = wait_until(lambda to=to: waited(strategy, to), "a worker reports", limit=60)  # type: ignore[misc]
            assert answer.json["status"] == "sent"
            change(topology, "emailz")
        wait_until(lambda: strategy.stats()["workers"] == 2, "both workers are subscribed again", limit=60)


def move_at_once(topology: Topology, key: str) -> None:
    with topology.cluster() as cluster:
        cluster.move_at_once(key)


def copies(inbox: Inbox, to: str) -> int:
    return sum(message["copies"] for message in inbox.messages(to))


def waited(strategy: Strategy, to: str) -> Answer | None:
    """The answer 200 of a synchronous call; None while the server is not subscribed to the replies."""
    answer = strategy.ask(email_path(to, "Hello", "How are you?") + "?wait=10")
    return answer if answer.status == 200 else None


def test_a_second_start_has_the_data_of_the_first(inbox: Inbox, tmp_path: Path) -> None:
    to, down = someone(), "smtp://127.0.0.1:1"
    with running_strategy("6_event_bus", tmp_path, SMTP_URL=down, REDIS="cluster") as strategy:
        wait_until(lambda: strategy.send(to).status == 202, "accepted")
        os.kill(int((tmp_path / "cluster.pid").read_text()), signal.SIGKILL)  # the servers must not be left behind
        pids = [Topology(tmp_path).pid(name) for name in NODES]
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), "no server is left", limit=40)
    with running_strategy("6_event_bus", tmp_path, SMTP_URL=inbox.smtp_url, REDIS="cluster"):
        wait_until(lambda: inbox.messages(to), "the email of the first run is sent", limit=60)
