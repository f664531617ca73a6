"""The embedded Postgres: a real server on loopback, which asks for a password, and whose data outlive it."""

import os
import signal
import sys
from pathlib import Path

import asyncpg
import psutil
import pytest

from common.services.service import running
from tests.support.postgres import running_postgres
from tests.support.programs import LIMIT, Program, closed_port, wait_until


@pytest.mark.timeout(180)
async def test_it_asks_for_its_password_and_what_it_has_stored_outlives_it(tmp_path: Path) -> None:
    with running_postgres(tmp_path) as postgres:
        assert psutil.Process(postgres.pid).uids().effective != 0
        listening = [c.laddr.ip for c in psutil.Process(postgres.pid).net_connections() if c.status == "LISTEN"]
        assert listening == ["127.0.0.1"]
        assert (tmp_path / "postgres").stat().st_mode & 0o077 == 0
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(f"postgresql://postgres:wrong@127.0.0.1:{postgres.port}/postgres")
        connection = await asyncpg.connect(postgres.url)
        await connection.execute("CREATE TABLE kept (word text); INSERT INTO kept VALUES ('Ä')")
        await connection.close()
        os.kill(postgres.pid, signal.SIGKILL)
        wait_until(lambda: running(tmp_path, "postgres") is None, "it has ended")
    with running_postgres(tmp_path) as postgres:
        connection = await asyncpg.connect(postgres.url)
        assert await connection.fetchval("SELECT lower(word) FROM kept") == "ä"
        await connection.close()
        with closed_port() as port:
            program = Program(
                [sys.executable, "-m", "common.services.postgres"],
                {"POSTGRES_PORT": str(port), "DATA_DIR": str(tmp_path / "other")},
            )
            try:
                program.wait_for_line(rf"^POSTGRES_PORT: port {port} on 127.0.0.1 is in use")
                assert program.process.wait(LIMIT) == 2
            finally:
                program.stop()


def test_a_role_that_waits_for_its_database_can_be_stopped() -> None:
    with closed_port() as port:
        url = f"postgresql://user:secret@127.0.0.1:{port}/database"
        programs = [
            Program([sys.executable, "-m", "examples.pictures", role], {"DATABASE_URL": url, "PORT": "0"})
            for role in ("server", "worker")
        ]
        for program in programs:
            program.wait_for_line("no database yet: the database: ")
            assert program.stop() == 0
            assert "secret" not in program.output


@pytest.mark.parametrize("url", ["mysql://host/db", "host", "postgresql://host:x/db"])
def test_a_bad_database_url_is_one_line_that_does_not_repeat_it(url: str) -> None:
    program = Program([sys.executable, "-m", "examples.pictures", "server"], {"DATABASE_URL": url})
    assert program.process.wait(LIMIT) == 2
    program.stop()
    assert program.output.startswith("DATABASE_URL: ")
    assert url not in program.output
