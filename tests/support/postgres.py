"""The embedded Postgres as tests use it."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from common.services.service import running
from common.settings import Settings
from tests.support.programs import START_SECONDS, wait_until
from tests.support.servers import running_service


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
    with running_service("postgres", data_dir):
        yield postgres_of(data_dir)
