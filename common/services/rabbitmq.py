"""`python -m common.services.rabbitmq`: a private node of the installed RabbitMQ as an embedded service.

Its data, cookie and configuration stay in DATA_DIR/rabbitmq. It listens on loopback only: on the AMQP port, and on the
port of Erlang's distribution, which the cookie protects. It does not start epmd, Erlang's daemon of node names, because
epmd would go on when the node ends; so a RabbitMQ of the system can run at the same time.
"""

import asyncio
import os
import secrets
import shutil
from asyncio.subprocess import Process
from contextlib import suppress
from pathlib import Path

from common.address import free_port
from common.amqp.link import CannotConnect, connect
from common.processes.process import run
from common.services.server_program import LOOPBACK, ServerProgram, private_folder, serve
from common.settings import RABBITMQ_PORT, Settings, exit_with_usage_error, read_settings

PROBE_SECONDS = 0.1  # how often a starting node is asked whether it is ready
# Debian's /usr/sbin/rabbitmq-server runs the system's node, as root only; the script that it calls runs any node.
PLACES = ("/usr/lib/rabbitmq/bin", "/usr/local/sbin", "/opt/homebrew/sbin", "/usr/sbin")
NOT_INSTALLED = "no rabbitmq-server is installed: install it, or name a running RabbitMQ with AMQP_URL"
NODE = "six-ways@localhost"  # RabbitMQ stores the data under this name


async def main(settings: Settings) -> None:
    find_program()
    await serve(
        settings,
        ServerProgram("RabbitMQ", "rabbitmq", RABBITMQ_PORT, spawn, answers),
        private_folder(settings, "rabbitmq"),
    )


def find_program() -> str:
    """The path of rabbitmq-server. Ends the program with one line and exit status 2 when there is none."""
    return installed() or exit_with_usage_error(NOT_INSTALLED)


def installed() -> str | None:
    return shutil.which("rabbitmq-server", path=os.pathsep.join([*PLACES, os.environ.get("PATH", "")]))


async def spawn(folder: Path, port: int, name: str, announcement: int) -> Process:
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
    (folder / "rabbitmq-env.conf").touch()  # instead of the system's
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
            "+sbwt none +sbwtdcpu none +sbwtdio none"  # no busy waiting, which would use the CPU
        ),
        "ERL_ZFLAGS": "-start_epmd false",  # for the node's helpers too: one of them starts epmd every minute
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RABBITMQ_")}
    return await asyncio.create_subprocess_exec(
        find_program(), env=environment | own, stdin=asyncio.subprocess.DEVNULL, pass_fds=[announcement]
    )


async def answers(node: Process, port: int, name: str) -> bool:
    """Wait until this node accepts connections. Returns False if it ends instead."""
    while node.returncode is None:
        with suppress(CannotConnect):
            async with await connect(f"amqp://guest:guest@{LOOPBACK}:{port}/") as connection:
                assert connection.transport is not None
                # If another process took the port first, the RabbitMQ that answers may not be ours.
                properties = connection.transport.connection.server_properties
                found = properties.get("cluster_name")
                return found in (name, name.encode()) or await node.wait() == 0
        await asyncio.sleep(PROBE_SECONDS)
    return False


if __name__ == "__main__":
    run(main(read_settings()))
