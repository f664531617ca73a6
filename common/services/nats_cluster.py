"""`python -m common.services.nats_cluster`: three NATS nodes with JetStream as one embedded service.

This process starts the three nodes, and starts each again when it ends, so you can kill any of them. A killed node is
started again after RESTART_SECONDS. That is longer than the other two need to elect new leaders (they do so when they
have heard nothing for 4 to 9 seconds), so you see that two nodes are enough.

Ports and data are in DATA_DIR/nats_cluster and stay the same from run to run, because each node remembers the others.
"""

import asyncio
import json
import logging
import os
from contextlib import suppress
from pathlib import Path

from asynckit.tasks import end_tasks, keep_running
from common.processes.process import run
from common.services.nats import binary
from common.services.node import Node, kept_ports
from common.services.server_program import LOOPBACK, private_folder
from common.services.service import announce, claim, stop_or_abandoned
from common.settings import Settings, read_settings

NAME = "nats_cluster"
NODES = ("node-1", "node-2", "node-3")
RESTART_SECONDS = 10.0
PROBE_SECONDS = 0.1  # how often a starting node is asked for its health

CONFIG = """\
server_name: {name}
host: "{host}"
port: {port}
http: "{host}:{health}"
jetstream {{
  store_dir: {folder}
  sync_interval: always
}}
cluster {{
  name: six-ways
  host: "{host}"
  port: {route}
  routes: {routes}
}}
"""

log = logging.getLogger(__name__)


class NatsNode(Node):
    def command(self, configuration: Path) -> list[str]:
        return [binary(), "--config", str(configuration)]


async def main(settings: Settings) -> None:
    binary()  # or end with one line
    folder = private_folder(settings, NAME)
    announcement = claim(settings.data_dir, NAME)
    ports = prepare(folder)
    nodes = [NatsNode(name, folder, announcement.fileno(), RESTART_SECONDS) for name in NODES]
    tasks = [keep_running(node.keep_running, f"running {node.name}") for node in nodes]
    try:
        for name in NODES:
            while not await is_healthy(ports[f"{name}-health"]):  # noqa: ASYNC110  another process
                await asyncio.sleep(PROBE_SECONDS)
        announce(announcement, pid=os.getpid(), **{f"nats_{name[-1]}_port": ports[name] for name in NODES})
        log.info("the nodes listen on %s", ", ".join(f"{LOOPBACK}:{ports[name]}" for name in NODES))
        log.info("stopping (%s)", await stop_or_abandoned(settings.data_dir, NAME))
    finally:
        await end_tasks(tasks)
        await asyncio.gather(*[node.stop() for node in nodes])


def prepare(folder: Path) -> dict[str, int]:
    """The ports of each node; writes the configurations at the first start. Ends the program if a port is in use.

    `node-1` is the port for clients, `node-1-route` the one for the other nodes, `node-1-health` serves /healthz.
    """
    file = folder / "ports.json"
    names = [*NODES, *(f"{name}-{what}" for name in NODES for what in ("route", "health"))]
    ports, are_new = kept_ports(file, names, "NATS=cluster")
    if are_new:
        for name in NODES:
            (folder / f"{name}.conf").write_text(configuration(name, folder, ports))
        file.write_text(json.dumps(ports))
    return ports


def configuration(name: str, folder: Path, ports: dict[str, int]) -> str:
    return CONFIG.format(
        name=name,
        host=LOOPBACK,
        port=ports[name],
        health=ports[f"{name}-health"],
        route=ports[f"{name}-route"],
        routes=json.dumps([f"nats://{LOOPBACK}:{ports[f'{other}-route']}" for other in NODES]),
        folder=json.dumps(str(folder / name)),
    )


async def is_healthy(port: int) -> bool:
    """Whether this node knows a leader of the cluster, and has caught up with the others."""
    with suppress(OSError):
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        try:
            writer.write(b"GET /healthz HTTP/1.0\r\n\r\n")
            return b" 200 " in await reader.readline()
        finally:
            writer.close()
    return False


if __name__ == "__main__":
    run(main(read_settings()))
