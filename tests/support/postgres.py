"""The embedded Postgres as tests use it."""

import itertools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from common.services.service import running
from common.settings import Settings
from tests.support.programs import START_SECONDS, Program, open_users_lock, wait_until


class Postgres:
    def __init__(self, data_dir: Path, port: int, pid: int) -> None:
        self.port = port
        self.pid = pid
        settings = Settings.model_construct(data_dir=data_dir, postgres_port=port, database_url=None)
        self.url = settings.database
        self._names = (f"test_{number}" for number in itertools.count())

    async def new_database(self) -> str:
        """The URL of an empty database."""
        name = next(self._names)
        connection = await asyncpg.connect(self.url)
        await connection.execute(f"CREATE DATABASE {name}")
        await connection.close()
        return f"{self.url.rpartition('/')[0]}/{name}"


def postgres_of(data_dir: Path) -> Postgres:
    """The one that runs for this folder."""
    facts = wait_until(lambda: running(data_dir, "postgres"), "Postgres runs", START_SECONDS)
    return Postgres(data_dir, facts["postgres_port"], facts["pid"])


@contextmanager
def running_postgres(data_dir: Path) -> Iterator[Postgres]:
    """Postgres as a service of its own, on a free port."""
    with open_users_lock(data_dir, "postgres"):
        settings = {"POSTGRES_PORT": "0", "DATA_DIR": str(data_dir)}
        program = Program([sys.executable, "-m", "common.services.postgres"], settings)
        try:
            program.wait_for_line("Postgres listens", START_SECONDS)
            yield postgres_of(data_dir)
        finally:
            program.stop()
