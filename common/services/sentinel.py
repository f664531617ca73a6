"""`python -m common.services.sentinel`: a primary, two replicas and three sentinels as one embedded service.

This process starts the six servers, and starts each again when it ends, so you can kill any of them. A killed primary
is started again after RESTART_SECONDS. That is longer than the sentinels need to notice, so a replica has been promoted
by then, and the old primary becomes its replica.

Ports and data are in DATA_DIR/sentinel and stay the same from run to run, because Valkey writes the addresses of the
others into each server's configuration file. `replica-1.conf` belongs to the server that began as a replica, whatever
it is now.
"""

import asyncio
import json
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from asynckit.redis_client import redis_client
from asynckit.tasks import end_tasks, keep_running
from common.processes.process import run
from common.services.node import Node, kept_ports, wait_until
from common.services.server_program import LOOPBACK, private_folder
from common.services.service import announce, claim, stop_or_abandoned
from common.settings import SENTINEL_SERVICE, Settings, read_settings

SERVERS = ("primary", "replica-1", "replica-2")
SENTINELS = ("sentinel-1", "sentinel-2", "sentinel-3")
RESTART_SECONDS = 4.0
DOWN_AFTER_MS = 2000  # without an answer for this time, a sentinel considers a server down
FAILOVER_TIMEOUT_MS = 5000

log = logging.getLogger(__name__)


async def main(settings: Settings) -> None:
    folder = private_folder(settings, "sentinel")
    announcement = claim(settings.data_dir, "sentinel")
    ports = prepare(folder)
    common = (folder, announcement.fileno(), RESTART_SECONDS)
    servers = [Node(name, *common) for name in SERVERS]
    sentinels = [Node(name, *common, "--sentinel") for name in SENTINELS]
    tasks = [keep_running(node.keep_running, f"running {node.name}") for node in servers]
    try:
        # A sentinel asks the primary for its replicas when it starts, then every ten seconds. A replica that it
        # does not know takes no part in a failover, and continues to follow the old primary.
        await wait_until(partial(servers_are_ready, [ports[name] for name in SERVERS]), "a replica")
        tasks += [keep_running(node.keep_running, f"running {node.name}") for node in sentinels]
        await wait_until(partial(sentinels_are_ready, [ports[name] for name in SENTINELS]), "a sentinel")
        facts = {f"{name.replace('-', '_')}_port": ports[name] for name in SENTINELS}
        announce(announcement, pid=os.getpid(), **facts)
        log.info("the sentinels listen on %s", ", ".join(f"{LOOPBACK}:{ports[name]}" for name in SENTINELS))
        log.info("stopping (%s)", await stop_or_abandoned(settings.data_dir, "sentinel"))
    finally:
        await end_tasks(tasks)
        await asyncio.gather(*[node.stop() for node in sentinels])
        await asyncio.gather(*[node.stop() for node in servers])


def prepare(folder: Path) -> dict[str, int]:
    """The port of each node; writes the configurations at the first start. Ends the program if a port is in use."""
    file = folder / "ports.json"
    ports, are_new = kept_ports(file, (*SERVERS, *SENTINELS), "REDIS=sentinel")
    if not are_new:
        return ports
    for name in SERVERS:
        (folder / name).mkdir(exist_ok=True)
        (folder / f"{name}.conf").write_text(server_configuration(name, folder, ports))
    for name in SENTINELS:
        (folder / name).mkdir(exist_ok=True)
        (folder / f"{name}.conf").write_text(sentinel_configuration(name, folder, ports))
    file.write_text(json.dumps(ports))
    return ports


def server_configuration(name: str, folder: Path, ports: dict[str, int]) -> str:
    options = {
        "bind": LOOPBACK,
        "port": str(ports[name]),
        "dir": f'"{(folder / name).resolve()}"',
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
        "save": '""',
        "repl-diskless-sync-delay": "0",
        "repl-timeout": "10",
        "shutdown-timeout": "1",  # do not wait long for replicas, which stop at the same time
    }
    if name != "primary":
        options["replicaof"] = f"{LOOPBACK} {ports['primary']}"
    return "".join(f"{option} {value}\n" for option, value in options.items())


def sentinel_configuration(name: str, folder: Path, ports: dict[str, int]) -> str:
    service = SENTINEL_SERVICE
    return (
        f'bind {LOOPBACK}\nport {ports[name]}\ndir "{(folder / name).resolve()}"\n'
        f"sentinel monitor {service} {LOOPBACK} {ports['primary']} 2\n"
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
    run(main(read_settings()))
