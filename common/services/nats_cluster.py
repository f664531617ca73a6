"""`python -m common.services.nats_cluster`: three NATS nodes with JetStream as one embedded service.

This process starts the three nodes, and restarts each one that ends, so you can kill any of them. The other two elect
new leaders when they have received no message from the old leader for 4 to 9 seconds. The killed node is running again
by then, and it votes. So there is a majority even if both other nodes are candidates at the same time.

A node whose disk is full disables JetStream and does not enable it again. So this process kills all nodes when their
disk is full, as common/services/nats.py does with its server.

Ports and data are in DATA_DIR/nats_cluster and stay the same from run to run, because each node remembers the others.
"""

import asyncio
import json
from contextlib import suppress
from pathlib import Path

from common.processes.process import run
from common.services.nats import binary, check_room
from common.services.node import Nodes, Ports, prepare_nodes, serve_nodes
from common.services.server_program import LOOPBACK
from common.settings import read_settings

NAME = "nats_cluster"
NODES = ("node-1", "node-2", "node-3")
RESTART_SECONDS = 1.0
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


async def begin(nodes: Nodes) -> Ports:
    ports = prepare(nodes.folder)
    check_room(nodes.folder)
    commands = {name: [binary(), "--config", str(nodes.folder / f"{name}.conf")] for name in NODES}
    nodes.run(commands, RESTART_SECONDS, needs_room=True)
    for name in NODES:
        while not await is_healthy(ports[f"{name}-health"]):  # noqa: ASYNC110  another process
            await asyncio.sleep(PROBE_SECONDS)
    return {f"nats_{name[-1]}_port": ports[name] for name in NODES}


def prepare(folder: Path) -> Ports:
    """Return the ports, and write the configurations at the first start. Ends the program if a port is in use.

    `node-1` is the port for clients, `node-1-route` the one for the other nodes, `node-1-health` serves /healthz.
    """
    more = [f"{name}-{what}" for name in NODES for what in ("route", "health")]
    return prepare_nodes(folder, NODES, more, configuration, "NATS=cluster")


def configuration(name: str, folder: Path, ports: Ports) -> str:
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
    binary()  # prints one line and exits if nats-server is missing
    run(serve_nodes(read_settings(), NAME, begin))
