"""`python -m common.services.rabbitmq`: a private node of the installed RabbitMQ as an embedded service.

Its data, cookie and configuration are in DATA_DIR/rabbitmq and outlive it. It listens on loopback only: on the AMQP
port, and on a port of Erlang's distribution that the cookie protects. It starts no epmd, Erlang's daemon of node names,
because that would outlive the node; so a RabbitMQ of the system may run beside it.

As in common/services/valkey.py, both processes hold the announcement's lock, and each survives the other's death.
"""

import asyncio
import errno
import logging
import os
import secrets
import shutil
from asyncio.subprocess import Process
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from common.address import cannot_listen, free_port
from common.amqp import CannotConnect, connect
from common.processes.process import run
from common.services.service import STOP_SECONDS, announce, claim, make_private, stop_or_abandoned
from common.settings import RABBITMQ_PORT, Settings, exit_with_usage_error, read_settings

LOOPBACK = "127.0.0.1"
PORTS_TO_TRY = 100
LOOK_SECONDS = 0.1
# Debian's /usr/sbin/rabbitmq-server runs the system's node, as root only; the script behind it runs any.
PLACES = ("/usr/lib/rabbitmq/bin", "/usr/local/sbin", "/opt/homebrew/sbin", "/usr/sbin")
NOT_INSTALLED = "no rabbitmq-server is installed: install it, or name a running RabbitMQ with AMQP_URL"
NODE = "six-ways@localhost"  # the data are under this name; nothing else has to know it

log = logging.getLogger(__name__)


async def main(settings: Settings) -> None:
    program = find_program()
    folder = (settings.data_dir / "rabbitmq").resolve()
    os.umask(0o077)  # for RabbitMQ, which inherits it
    make_private(settings.data_dir)
    make_private(folder)
    announcement = claim(settings.data_dir, "rabbitmq")
    node, port = await start(program, folder, ports_to_try(settings.rabbitmq_port), announcement.fileno())
    announce(announcement, pid=node.pid, rabbitmq_port=port)
    log.info("RabbitMQ listens on %s port %d", LOOPBACK, port)
    ended = asyncio.create_task(node.wait())
    stop = asyncio.create_task(stop_or_abandoned(settings.data_dir, "rabbitmq"))
    await asyncio.wait([ended, stop], return_when=asyncio.FIRST_COMPLETED)
    if ended.done():
        log.info("RabbitMQ ended with status %d", ended.result())
    else:
        log.info("stopping (%s)", stop.result())
        await shut_down(node)


def find_program() -> str:
    """The path of rabbitmq-server. Ends the program with one line and exit status 2 when there is none."""
    return installed() or exit_with_usage_error(NOT_INSTALLED)


def installed() -> str | None:
    return shutil.which("rabbitmq-server", path=os.pathsep.join([*PLACES, os.environ.get("PATH", "")]))


def ports_to_try(port: int | None) -> Iterable[int]:
    """The port that the setting names and no other (0: any); without it, the usual one or the next."""
    if port is None:
        return range(RABBITMQ_PORT, RABBITMQ_PORT + PORTS_TO_TRY)
    return [port] if port else [0] * PORTS_TO_TRY


async def start(program: str, folder: Path, ports: Iterable[int], announcement: int) -> tuple[Process, int]:
    """Start the node on the first free port; return once it answers.

    Ends the program with one line and exit status 2 when there is no free port, or when the node does not start.
    """
    port = RABBITMQ_PORT
    for port in ports:
        if (free := checked(port)) is None:
            continue
        name = secrets.token_hex(8)
        node = await spawn(program, folder, free, name, announcement)
        if await answers(node, free, name):
            return node, free
        if checked(free) is not None:
            exit_with_usage_error(f"the embedded RabbitMQ did not start; {folder.parent / 'rabbitmq.log'} says why")
    in_use = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    exit_with_usage_error(cannot_listen(LOOPBACK, port, in_use, "RABBITMQ_PORT"))


def checked(port: int) -> int | None:
    """The port, or any for 0, if it is free."""
    with suppress(OSError):
        return free_port(LOOPBACK, port)
    return None


async def spawn(program: str, folder: Path, port: int, name: str, announcement: int) -> Process:
    cookie = folder / ".erlang.cookie"  # the password between Erlang nodes; Erlang's own would be easier to guess
    if not cookie.exists():
        cookie.write_text(secrets.token_hex(20))
        cookie.chmod(0o400)
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = {LOOPBACK}:{port}\n"
        f"cluster_name = {name}\n"
        "log.console = true\n"
        "log.console.level = warning\n"
        "raft.wal_max_size_bytes = 67108864\n"
    )
    (folder / "enabled_plugins").write_text("[].\n")
    (folder / "rabbitmq-env.conf").touch()  # in the place of the system's
    own = {
        "HOME": str(folder),  # Erlang looks for the cookie there
        "RABBITMQ_NODENAME": NODE,
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
        "RABBITMQ_PID_FILE": str(folder / "node.pid"),
        "RABBITMQ_LOG_BASE": str(folder),
        "RABBITMQ_LOGS": "-",
        "RUNNING_UNDER_SYSTEMD": "true",  # the script then becomes the node, and its pid is the node's
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
            f"-sname {NODE} -erl_epmd_port {free_port(LOOPBACK, 0)} -kernel inet_dist_use_interface {{127,0,0,1}} "
            "+sbwt none +sbwtdcpu none +sbwtdio none"  # no busy waiting: the machine has other work
        ),
        "ERL_ZFLAGS": "-start_epmd false",  # for the helpers of the node too: one of them starts epmd every minute
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RABBITMQ_")}
    return await asyncio.create_subprocess_exec(
        program, env=environment | own, stdin=asyncio.subprocess.DEVNULL, pass_fds=[announcement]
    )


async def answers(node: Process, port: int, name: str) -> bool:
    """Wait until this very node accepts connections; False when it ends instead."""
    while node.returncode is None:
        with suppress(CannotConnect):
            async with await connect(f"amqp://guest:guest@{LOOPBACK}:{port}/") as connection:
                assert connection.transport is not None
                # In a lost race it is another RabbitMQ that answers on this port.
                properties = connection.transport.connection.server_properties
                found = properties.get("cluster_name")
                return found in (name, name.encode()) or await node.wait() == 0
        await asyncio.sleep(LOOK_SECONDS)
    return False


async def shut_down(node: Process) -> None:
    node.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await node.wait()
    except TimeoutError:
        node.kill()
        await node.wait()


if __name__ == "__main__":
    run(main(read_settings()))
