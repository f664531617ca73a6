"""`python -m common.services.cluster`: a Redis Cluster of three primaries and three replicas as one embedded service.

This process starts the six servers, and starts each again when it ends, so you can kill any of them. A killed server is
started again after RESTART_SECONDS (node.py). That is longer than the others need to notice, so the replica of a killed
primary has taken over its slots by then, and the old primary becomes its replica. Until then the new primary has no
replica.

Ports and data are in DATA_DIR/cluster and stay the same from run to run, because each server remembers the addresses of
the others. `node-1` to `node-3` began as primaries, whatever they are now.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from asynckit.redis_client import redis_client
from common.processes.process import run
from common.services.node import (
    Nodes,
    Ports,
    announced_port,
    prepare_nodes,
    serve_nodes,
    server_options,
    wait_until,
    written,
)
from common.services.server_program import LOOPBACK
from common.settings import read_settings

NODES = tuple(f"node-{number}" for number in range(1, 7))
PRIMARIES = 3  # at first; each has one replica
SLOTS = ((0, 5460), (5461, 10922), (10923, 16383))
NODE_TIMEOUT_MS = 2000  # without an answer for this time, a node holds another one to be down


async def begin(nodes: Nodes) -> Ports:
    ports = prepare(nodes.folder)
    nodes.start(NODES)
    await form(nodes.folder, ports)
    return {f"cluster_{number}_port": announced_port(ports, f"node-{number}") for number in (1, 2, 3)}


def prepare(folder: Path, proxies: Ports | None = None) -> Ports:
    """The ports of each node; writes the configurations at the first start. Ends the program if a port is in use.

    `node-1` is the port for clients, `node-1-bus` the one for the other nodes.
    """
    return prepare_nodes(folder, NODES, [f"{name}-bus" for name in NODES], configuration, "REDIS=cluster", proxies)


def configuration(name: str, folder: Path, ports: Ports) -> str:
    options = server_options(name, folder, ports) | {
        "cluster-enabled": "yes",
        "cluster-port": str(ports[f"{name}-bus"]),
        "cluster-announce-ip": LOOPBACK,
        "cluster-announce-port": str(announced_port(ports, name)),
        "cluster-announce-bus-port": str(ports[f"{name}-bus"]),
        "cluster-node-timeout": str(NODE_TIMEOUT_MS),
        "cluster-require-full-coverage": "no",  # while a primary fails over, the others go on
        "cluster-allow-replica-migration": "no",  # each primary keeps its replica
    }
    return written(options)


async def form(folder: Path, ports: Ports) -> None:
    """Make the six servers a cluster at the first start, and wait until it is complete.

    If this was interrupted, the next start does it again: a step that was done already changes nothing.
    """
    async with AsyncExitStack() as stack:
        urls = [f"redis://{LOOPBACK}:{ports[name]}" for name in NODES]
        clients = [await stack.enter_async_context(redis_client(url)) for url in urls]
        await wait_until(partial(all_answer, clients), "a node")
        if not (folder / "formed").exists():
            await divide_slots(clients)
            for name in NODES:
                port, bus = announced_port(ports, name), ports[f"{name}-bus"]
                await clients[0].execute_command("CLUSTER", "MEET", LOOPBACK, port, bus)  # type: ignore[no-untyped-call]
            await wait_until(partial(all_know_all, clients), "a node")
            await make_replicas(clients)
            (folder / "formed").touch()
        await wait_until(partial(is_complete, clients), "the cluster")


async def divide_slots(clients: Sequence[Redis]) -> None:
    for number, client in enumerate(clients, 1):
        with suppress(ResponseError):  # done before
            await client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number)  # type: ignore[no-untyped-call]
    for client, slots in zip(clients, SLOTS, strict=False):
        with suppress(ResponseError):
            await client.execute_command("CLUSTER", "ADDSLOTSRANGE", *slots)  # type: ignore[no-untyped-call]


async def make_replicas(clients: Sequence[Redis]) -> None:
    for primary, replica in zip(clients[:PRIMARIES], clients[PRIMARIES:], strict=True):
        name = await primary.execute_command("CLUSTER", "MYID")  # type: ignore[no-untyped-call]
        await replica.execute_command("CLUSTER", "REPLICATE", name)  # type: ignore[no-untyped-call]


async def all_answer(clients: Sequence[Redis]) -> bool:
    with suppress(RedisError):
        return all([await client.ping() for client in clients])
    return False


async def all_know_all(clients: Sequence[Redis]) -> bool:
    with suppress(RedisError):
        return all([f"cluster_known_nodes:{len(NODES)}" in await _facts(client) for client in clients])
    return False


async def is_complete(clients: Sequence[Redis]) -> bool:
    """Whether all slots are served, and each primary has a replica that follows it."""
    with suppress(RedisError):
        for client in clients:
            facts = await client.info("replication")
            follows = facts.get("master_link_status") == "up" or facts.get("connected_slaves") == 1
            if not follows or "cluster_state:ok" not in await _facts(client):
                return False
        return True
    return False


async def _facts(client: Redis) -> list[str]:
    text: bytes = await client.execute_command("CLUSTER", "INFO")  # type: ignore[no-untyped-call]
    return text.decode().split()


if __name__ == "__main__":
    run(serve_nodes(read_settings(), "cluster", begin))
