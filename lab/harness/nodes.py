"""The servers of `REDIS=sentinel` and `REDIS=cluster`, each behind a proxy of the lab.

The lab talks to the servers directly. The strategy, the replicas and the sentinels go through the proxies
(common/services/node.py).
"""

import os
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from redis import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from common.services import cluster, sentinel
from common.services.node import Ports, announced_port, source_address
from common.services.service import make_private
from common.settings import SENTINEL_SERVICE
from lab.harness.processes import wait_until
from lab.harness.proxy import CLIENT, Proxy, a_proxy_thread
from lab.harness.slots import Cluster

SETTLE_SECONDS = 90.0  # a sentinel that got no CPU for two seconds waits for 30 (TILT)
FAILOVER_SECONDS = 60.0


class Nodes(ABC):
    """`names` are the servers with data, `sentinels` are the others."""

    names: Sequence[str]
    sentinels: Sequence[str] = ()

    def __init__(self, folder: Path, ports: Ports, proxies: dict[str, Proxy]) -> None:
        self.ports = ports
        self._folder = folder
        self._proxies = proxies

    @abstractmethod
    def claims(self, name: str, key: str) -> bool:
        """Whether this server says that it is the primary of this key. Raises RedisError."""

    def primary(self, key: str, other_than: str = "") -> str | None:
        """The first server that claims to be the primary; None if no server does."""
        for name in self.names:
            with suppress(RedisError, OSError):
                if name != other_than and self.claims(name, key):
                    return name
        return None

    @abstractmethod
    def is_settled(self) -> bool:
        """Whether every server runs and has its place, so that the next failover finds what it needs."""

    def settle(self) -> None:
        wait_until(self._is_settled, "every server has its place", SETTLE_SECONDS)

    def _is_settled(self) -> bool:
        try:
            return self.is_settled()
        except (RedisError, OSError):
            return False

    def pid(self, name: str) -> int:
        return int((self._folder / f"{name}.pid").read_text())

    @contextmanager
    def client(self, name: str) -> Iterator[Any]:
        options: dict[str, Any] = {"socket_timeout": 1, "socket_connect_timeout": 1, "decode_responses": True}
        with Redis(port=self.ports[name], protocol=2, **options) as client:
            yield client

    def replication(self, name: str) -> dict[str, Any]:
        """Raises RedisError."""
        with self.client(name) as client:
            facts: dict[str, Any] = client.info("replication")
            return facts

    def named(self, port: int) -> str:
        """The name of the server that announces this port."""
        return next(name for name in (*self.names, *self.sentinels) if announced_port(self.ports, name) == port)

    def replicas(self, primary: str) -> list[str]:
        """The names of the servers that follow this primary."""
        facts = self.replication(primary)
        return [self.named(int(facts[f"slave{number}"]["port"])) for number in range(facts["connected_slaves"])]

    def hold(self, sources: Sequence[str], targets: Sequence[str]) -> None:
        """Hold back everything between these. A source is the name of a server, or CLIENT."""
        for target in targets:
            self._proxies[target].hold(self._addresses(sources))

    def restore(self) -> None:
        """Pass everything on again."""
        for proxy in self._proxies.values():
            proxy.restore(self._addresses([CLIENT, *self._proxies]))

    def cut(self, target: str) -> None:
        """Reset the connections of the other servers to this one."""
        others = [name for name in self.names if name != target]
        self._proxies[target].cut(self._addresses(others))

    def isolate(self, names: Sequence[str], among: Sequence[str]) -> None:
        """Hold back everything between these and the others of `among`."""
        others = [name for name in among if name not in names]
        self.hold(others, names)
        self.hold(names, [name for name in others if name != CLIENT])

    def _addresses(self, sources: Sequence[str]) -> list[str]:
        return [name if name == CLIENT else source_address(self.ports, name) for name in sources]


class SentinelNodes(Nodes):
    names = sentinel.SERVERS
    sentinels = sentinel.SENTINELS

    def claims(self, name: str, key: str) -> bool:
        return bool(self.replication(name)["role"] == "master")

    def is_settled(self) -> bool:
        primary = self.primary("")
        if primary is None or len(self.replicas(primary)) != 2:
            return False
        return all(self._knows(name, announced_port(self.ports, primary)) for name in self.sentinels)

    def show_primary(self, sentinels: Sequence[str]) -> None:
        """Let these sentinels, which are cut off, reach the servers again, and wait until they find the primary up.

        If they could reach each other before that, they would replace it although it is up.
        """
        for name in self.names:
            self._proxies[name].restore(self._addresses(sentinels))
        wait_until(
            lambda: all(map(self._finds_primary_up, sentinels)), "the sentinels find the primary", SETTLE_SECONDS
        )

    def _finds_primary_up(self, sentinel: str) -> bool:
        with suppress(RedisError, OSError), self.client(sentinel) as client:
            [found] = client.execute_command("SENTINEL MASTERS").values()
            return bool(found["flags"] == "master")
        return False

    def _knows(self, name: str, port: int) -> bool:
        """Whether this sentinel finds the primary on this port, all replicas usable, and both other sentinels."""
        with self.client(name) as client:
            [found] = client.execute_command("SENTINEL MASTERS").values()
            replicas = client.execute_command("SENTINEL SLAVES", SENTINEL_SERVICE)
            others = client.execute_command("SENTINEL SENTINELS", SENTINEL_SERVICE)
        usable = [one for one in replicas if is_up(one) and one["master-link-status"] == "ok"]
        awake = [one for one in others if is_up(one)]
        return (found["port"], found["flags"], len(usable), len(awake)) == (port, "master", 2, 2)


def is_up(seen: dict[str, Any]) -> bool:
    """Whether a sentinel considers this server or sentinel usable."""
    return not {"s_down", "disconnected"} & set(seen["flags"].split(","))


class ClusterNodes(Nodes):
    names = cluster.NODES

    def claims(self, name: str, key: str) -> bool:
        slot = key_slot(key.encode())
        with self.client(name) as client:
            ranges = client.execute_command("CLUSTER", "SLOTS")
        return any(row[0] <= slot <= row[1] and self.named(int(row[2][1])) == name for row in ranges)

    def is_settled(self) -> bool:
        for name in self.names:
            facts = self.replication(name)
            with self.client(name) as client:
                state = client.execute_command("CLUSTER INFO")
            if (state["cluster_state"], state["cluster_slots_ok"]) != ("ok", "16384"):
                return False
            if facts.get("master_link_status") != "up" and facts["connected_slaves"] != 1:
                return False
        return True

    def move_slot(self, key: str) -> None:
        """Move the slot of this key to another primary, as `redis-cli --cluster reshard` does."""
        with ExitStack() as stack:
            clients = [stack.enter_context(self.client(name)) for name in self.names]
            Cluster([announced_port(self.ports, name) for name in self.names], clients).move(key).run()


KINDS: dict[str, Any] = {"sentinel": (sentinel, SentinelNodes), "cluster": (cluster, ClusterNodes)}


@contextmanager
def proxied_nodes(data_dir: Path, topology: str) -> Iterator[Nodes]:
    """Prepare the folder of the embedded service, without data, so that it starts its servers behind proxies."""
    service, kind = KINDS[topology]
    folder, names = data_dir / topology, [*kind.names, *kind.sentinels]
    with a_proxy_thread(len(names)) as proxies:
        shutil.rmtree(folder, ignore_errors=True)
        make_private(data_dir)
        make_private(folder)
        own = {f"{name}-proxy": proxy.port for name, proxy in zip(names, proxies, strict=True)}
        ports = service.prepare(folder, own)
        for name, proxy in zip(names, proxies, strict=True):
            proxy.lead_to(ports[name])
        yield kind(folder, ports, dict(zip(names, proxies, strict=True)))


def server_settings() -> dict[str, object]:
    """REDIS_SERVER, if it is set."""
    server = os.environ.get("REDIS_SERVER")
    return {"REDIS_SERVER": server} if server else {}


def cannot_run(topology: str) -> str | None:
    """Why the lab cannot run this topology on this machine; None if it can."""
    server = os.environ.get("REDIS_SERVER")
    if topology == "single":
        return None
    if sys.platform != "linux":
        return "each server needs an address of its own, such as 127.0.1.1, which only Linux has"
    return f"there is no {server}" if server and not os.access(server, os.X_OK) else None
