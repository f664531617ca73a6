"""A server program as an embedded service: it listens on the first free port and has its data in DATA_DIR/NAME.

Two processes hold the announcement's lock (common/services/service.py): this one and the server that it starts. If the
server dies, this process ends too, and the users start the service again. If this process dies, the server goes on, and
its last user stops it.
"""

import asyncio
import errno
import logging
import os
import secrets
import signal
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common.address import cannot_listen, free_port
from common.services.service import STOP_SECONDS, announce, claim, make_private, stop_or_abandoned
from common.settings import Settings, exit_with_usage_error

LOOPBACK = "127.0.0.1"
PORTS_TO_TRY = 100

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerProgram:
    """What differs between the servers."""

    title: str
    """For messages: "Valkey"."""
    name: str
    """Of the service. The setting of its port is NAME_PORT."""
    first_port: int
    """The first one to try if the setting is not set."""
    spawn: Callable[[Path, int, str, int], Awaitable[Process]]
    """Start it with this folder, port, name (a random one, for `answers`) and inherited announcement."""
    answers: Callable[[Process, int, str], Awaitable[bool]]
    """Wait until this server, and no other on its port, can be used. Returns False if it ends instead."""
    stop_signal: signal.Signals = signal.SIGTERM
    """The server writes and syncs its files before it exits."""


def private_folder(settings: Settings, name: str) -> Path:
    """The absolute path of a service's data. Only its owner can read what this process and its children write there."""
    os.umask(0o077)
    make_private(settings.data_dir)
    make_private(settings.data_dir / name)
    return (settings.data_dir / name).resolve()


async def serve(settings: Settings, program: ServerProgram, folder: Path) -> None:
    """Run the server until it ends, this process is stopped, or no terminal uses the service any more.

    Ends the program with one line and exit status 2 if no port is free or the server does not start.
    """
    announcement = claim(settings.data_dir, program.name)
    server, port = await start(settings, program, folder, announcement.fileno())
    announce(announcement, pid=server.pid, **{f"{program.name}_port": port})
    log.info("%s listens on %s port %d", program.title, LOOPBACK, port)
    ended = asyncio.create_task(server.wait())
    stop = asyncio.create_task(stop_or_abandoned(settings.data_dir, program.name))
    await asyncio.wait([ended, stop], return_when=asyncio.FIRST_COMPLETED)
    if ended.done():
        log.info("%s ended with status %d", program.title, ended.result())
    else:
        log.info("stopping (%s)", stop.result())
        await shut_down(server, program.stop_signal)


async def start(settings: Settings, program: ServerProgram, folder: Path, announcement: int) -> tuple[Process, int]:
    """Start the server on the first free port, and return when it answers.

    If another process takes the port between our check and the server's start, the next port is tried.
    """
    setting = f"{program.name}_port"
    port = program.first_port
    for port in ports_to_try(getattr(settings, setting), program.first_port):
        if (free := checked(port)) is None:
            continue
        name = secrets.token_hex(8)
        server = await program.spawn(folder, free, name, announcement)
        if await program.answers(server, free, name):
            return server, free
        if checked(free) is not None:
            output = settings.data_dir / f"{program.name}.log"
            exit_with_usage_error(f"the embedded {program.title} did not start; see {output}")
    in_use = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    exit_with_usage_error(cannot_listen(LOOPBACK, port, in_use, setting.upper()))


def ports_to_try(port: int | None, first: int) -> Iterable[int]:
    """The port that the setting names and no other (0: any free one); if it is unset, the first and the next ones."""
    if port is None:
        return range(first, first + PORTS_TO_TRY)
    return [port] if port else [0] * PORTS_TO_TRY


def checked(port: int) -> int | None:
    """The port (any free one for 0), or None if it is in use."""
    with suppress(OSError):
        return free_port(LOOPBACK, port)
    return None


async def shut_down(server: Process, stop_signal: signal.Signals = signal.SIGTERM) -> None:
    server.send_signal(stop_signal)
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await server.wait()
    except TimeoutError:
        server.kill()
        await server.wait()
