"""Connections to Postgres, and the numbered migrations that run at the start."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg

from asynckit.log_limit import OncePerSecond
from common.processes.process import stop_requested
from common.settings import exit_with_usage_error

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK = 20_161_129  # any number: the server and the worker start at the same time, and one of them migrates
CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 10.0
AGAIN_SECONDS = 0.5  # between two attempts at the start
CONNECTIONS = 10

DOWN = (
    OSError,  # TimeoutError is one, too
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.OperatorInterventionError,  # it is shutting down, or starting up
    asyncpg.InterfaceError,  # the connection has closed
    asyncpg.InternalClientError,  # it closes at this moment, while asyncpg begins another query
)
"""What asyncpg raises while Postgres is unreachable."""
REFUSED = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)  # waiting does not help

Pool = asyncpg.Pool  # of connections

log = logging.getLogger(__name__)
often = OncePerSecond(log)


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[Pool]:
    """Wait until Postgres is there, migrate, and yield a pool whose broken connections are replaced.

    Ends the program when it is stopped while it waits, and with one line if the URL names no user or database.
    """
    await _migrated(url)
    pool = await asyncpg.create_pool(
        url, min_size=0, max_size=CONNECTIONS, timeout=CONNECT_SECONDS, command_timeout=COMMAND_SECONDS
    )
    try:
        yield pool
    finally:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await pool.close()
        except DOWN:
            pool.terminate()


async def _migrated(url: str) -> None:
    while True:
        try:
            connection = await asyncpg.connect(url, timeout=CONNECT_SECONDS)
            try:
                return await migrate(connection)
            finally:
                await connection.close()
        except DOWN as error:
            often.warning("no database yet: %s", describe(error))
            with suppress(TimeoutError):
                await asyncio.wait_for(stop_requested(started=False), AGAIN_SECONDS)
                sys.exit(0)
        except REFUSED as error:
            exit_with_usage_error(f"DATABASE_URL: {describe(error)}")


async def migrate(connection: asyncpg.Connection) -> None:
    """Run the migrations that this database has not had, in the order of their numbers: all of them, or none."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations (number integer PRIMARY KEY, run_at timestamptz DEFAULT now())"
        )
        done = {row["number"] for row in await connection.fetch("SELECT number FROM migrations")}
        for path in sorted(MIGRATIONS.glob("*.sql")):
            if (number := int(path.name[:4])) not in done:
                await connection.execute(path.read_text(encoding="utf-8"))
                await connection.execute("INSERT INTO migrations (number) VALUES ($1)", number)
                log.info("ran migration %s", path.name)


def describe(error: BaseException) -> str:
    return f"the database: {' '.join(str(error).split()) or type(error).__name__}"
