"""`python -m common.services.cluster`: a Redis Cluster of three primaries and three replicas as one embedded service.

This process starts the six servers, and starts each again when it ends, so you can kill any of them. A killed server is
started again after RESTART_SECONDS. That is longer than the others need to notice, so the replica of a killed primary
has taken over its slots by then, and the old primary becomes its replica. Until then the new primary has no replica.

Ports and data are in DATA_DIR/cluster and stay the same from run to run, because each server remembers the addresses of
the others. `node-1` to `node-3` began as primaries, whatever they are now.
"""

import asyncio
import json
import logging
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from asynckit.redis_client import redis_client
from asynckit.tasks import end_tasks, keep_running
from common.processes.process import run
from common.services.node import Node, kept_ports, wait_until
from common.services.server_program import LOOPBACK, private_folder
from common.services.service import announce, claim, stop_or_abandoned
from common.settings import Settings, read_settings

NODES = tuple(f"node-{number}" for number in range(1, 7))
PRIMARIES = 3  # at first; each has one replica
SLOTS = ((0, 5460), (5461, 10922), (10923, 16383))
RESTART_SECONDS = 4.0
NODE_TIMEOUT_MS = 2000  # without an answer for this time, a node holds another one to be down

log = logging.getLogger(__name__)


async def main(settings: Settings) -> None:
    folder = private_folder(settings, "cluster")
    announcement = claim(settings.data_dir, "cluster")
    ports = prepare(folder)
    nodes = [Node(name, folder, announcement.fileno(), RESTART_SECONDS) for name in NODES]
    tasks = [keep_running(node.keep_running, f"running {node.name}") for node in nodes]
    try:
        await form(folder, ports)
        facts = {f"cluster_{number}_port": ports[f"node-{number}"] for number in (1, 2, 3)}
        announce(announcement, pid=os.getpid(), **facts)
        log.info("the nodes listen on %s", ", ".join(f"{LOOPBACK}:{ports[name]}" for name in NODES))
        log.info("stopping (%s)", await stop_or_abandoned(settings.data_dir, "cluster"))
    finally:
        await end_tasks(tasks)
        await asyncio.gather(*[node.stop() for node in nodes])


def prepare(folder: Path) -> dict[str, int]:
    """The ports of each node; writes the configurations at the first start. Ends the program if a port is in use.

    `node-1` is the port for clients, `node-1-bus` the one for the other nodes.
    """
    file = folder / "ports.json"
    ports, are_new = kept_ports(file, [*NODES, *(f"{name}-bus" for name in NODES)], "REDIS=cluster")
    if are_new:
        for name in NODES:
            (folder / name).mkdir(exist_ok=True)
            (folder / f"{name}.conf").write_text(configuration(name, folder, ports))
        file.write_text(json.dumps(ports))
    return ports


def configuration(name: str, folder: Path, ports: dict[str, int]) -> str:
    options = {
        "bind": LOOPBACK,
        "port": str(ports[name]),
        "cluster-enabled": "yes",
        "cluster-port": str(ports[f"{name}-bus"]),
        "cluster-node-timeout": str(NODE_TIMEOUT_MS),
        "cluster-require-full-coverage": "no",  # while a primary fails over, the others go on
        "cluster-allow-replica-migration": "no",  # each primary keeps its replica
        "dir": f'"{(folder / name).resolve()}"',
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
        "save": '""',
        "repl-diskless-sync-delay": "0",
        "shutdown-timeout": "1",  # do not wait long for replicas, which stop at the same time
    }
    return "".join(f"{option} {value}\n" for option, value in options.items())


async def form(folder: Path, ports: dict[str, int]) -> None:
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
                port, bus = ports[name], ports[f"{name}-bus"]
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
    run(main(read_settings()))
