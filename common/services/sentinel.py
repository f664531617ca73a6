"""`python -m common.services.sentinel`: a primary, two replicas and three sentinels as one embedded service.

This process starts the six servers, and starts each again when it ends, so you can kill any of them. A killed primary
is started again after RESTART_SECONDS (node.py). That is longer than the sentinels need to notice, so a replica has
been promoted by then, and the old primary becomes its replica.

Ports and data are in DATA_DIR/sentinel and stay the same from run to run, because Valkey writes the addresses of the
others into each server's configuration file. `replica-1.conf` belongs to the server that began as a replica, whatever
it is now.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from asynckit.redis_client import redis_client
from common.processes.process import run
from common.services.node import (
    Nodes,
    Ports,
    announced_port,
    listening_options,
    prepare_nodes,
    serve_nodes,
    server_options,
    wait_until,
    written,
)
from common.services.server_program import LOOPBACK
from common.settings import SENTINEL_SERVICE, read_settings

SERVERS = ("primary", "replica-1", "replica-2")
SENTINELS = ("sentinel-1", "sentinel-2", "sentinel-3")
DOWN_AFTER_MS = 2000  # without an answer for this time, a sentinel considers a server down
FAILOVER_TIMEOUT_MS = 5000


async def begin(nodes: Nodes) -> Ports:
    ports = prepare(nodes.folder)
    nodes.start(SERVERS)
    # A sentinel asks the primary for its replicas when it starts, then every ten seconds. A replica that it does not
    # know takes no part in a failover, and continues to follow the old primary.
    await wait_until(partial(servers_are_ready, [ports[name] for name in SERVERS]), "a replica")
    nodes.start(SENTINELS, "--sentinel")
    await wait_until(partial(sentinels_are_ready, [ports[name] for name in SENTINELS]), "a sentinel")
    return {f"{name.replace('-', '_')}_port": announced_port(ports, name) for name in SENTINELS}


def prepare(folder: Path, proxies: Ports | None = None) -> Ports:
    """The port of each node; writes the configurations at the first start. Ends the program if a port is in use."""
    return prepare_nodes(folder, (*SERVERS, *SENTINELS), (), configuration, "REDIS=sentinel", proxies)


def configuration(name: str, folder: Path, ports: Ports) -> str:
    if name in SENTINELS:
        return sentinel_configuration(name, folder, ports)
    options = server_options(name, folder, ports) | {"repl-timeout": "10"}
    if name != "primary":
        options["replicaof"] = f"{LOOPBACK} {announced_port(ports, 'primary')}"
    return written(options)


def sentinel_configuration(name: str, folder: Path, ports: Ports) -> str:
    service = SENTINEL_SERVICE
    return written(listening_options(name, folder, ports)) + (
        f"sentinel announce-ip {LOOPBACK}\n"
        f"sentinel announce-port {announced_port(ports, name)}\n"
        f"sentinel monitor {service} {LOOPBACK} {announced_port(ports, 'primary')} 2\n"
        f"sentinel down-after-milliseconds {service} {DOWN_AFTER_MS}\n"
        f"sentinel failover-timeout {service} {FAILOVER_TIMEOUT_MS}\n"
        f"sentinel parallel-syncs {service} 1\n"
    )


async def servers_are_ready(ports: Sequence[int]) -> bool:
    """Whether one of them is a primary that all others follow."""
    for port in ports:
        with suppress(RedisError):
            async with redis_client(f"redis://{LOOPBACK}:{port}") as redis:
                facts = await redis.info("replication")
                if facts["role"] == "master" and facts["connected_slaves"] == len(SERVERS) - 1:
                    return True
    return False


async def sentinels_are_ready(ports: Sequence[int]) -> bool:
    """Whether each knows both replicas and both other sentinels."""
    for port in ports:
        try:
            async with redis_client(f"redis://{LOOPBACK}:{port}") as sentinel:
                answer: Any = await sentinel.execute_command("SENTINEL", "master", SENTINEL_SERVICE)  # type: ignore[no-untyped-call]
        except RedisError:
            return False
        facts = dict(zip(answer[::2], answer[1::2], strict=True))
        if (facts[b"num-slaves"], facts[b"num-other-sentinels"]) != (b"2", b"2"):
            return False
    return True


if __name__ == "__main__":
    run(serve_nodes(read_settings(), "sentinel", begin))
