"""The embedded NATS: a real server on loopback, whose data outlive it."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from nats.aio.client import Client

from common.services import disk, nats
from common.services.service import running
from common.settings import Settings
from tests.support.programs import LIMIT, ROOT, Program, clean_environment, closed_port, wait_until
from tests.support.servers import running_nats


def test_it_listens_on_loopback_and_syncs_always(tmp_path: Path) -> None:
    with running_nats(tmp_path) as server, socket.create_connection(("127.0.0.1", server.port), LIMIT) as connection:
        greeting = json.loads(connection.makefile().readline().removeprefix("INFO "))
        assert (greeting["host"], greeting["jetstream"]) == ("127.0.0.1", True)
        assert "sync_interval: always" in (tmp_path / "nats" / "server.conf").read_text()
        assert (tmp_path / "nats").stat().st_mode & 0o077 == 0


async def test_what_it_has_stored_outlives_it(tmp_path: Path) -> None:
    with running_nats(tmp_path) as server:
        client = Client()
        await client.connect(server.url)
        await client.jetstream().add_stream(name="kept", subjects=["kept"])
        await client.jetstream().publish("kept", b"x")
        await client.close()
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: running(tmp_path, "nats") is None, "it has ended")
    with running_nats(tmp_path) as server:
        await client.connect(server.url)
        assert (await client.jetstream().stream_info("kept")).state.messages == 1
        await client.close()


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with closed_port() as port:
        program = Program(
            [sys.executable, "-m", "common.services.nats"], {"NATS_PORT": str(port), "DATA_DIR": str(tmp_path)}
        )
        try:
            program.wait_for_line(rf"^NATS_PORT: port {port} on 127.0.0.1 is in use")
            assert program.process.wait(LIMIT) == 2
        finally:
            program.stop()


def test_forget_deletes_its_data_and_not_while_it_runs(tmp_path: Path) -> None:
    def forget() -> subprocess.CompletedProcess[str]:
        environment = clean_environment() | {"DATA_DIR": str(tmp_path)}
        command = ["make", "-s", "forget"]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT)

    with running_nats(tmp_path):
        assert "NATS is running @" in forget().stderr
        assert (tmp_path / "nats").exists()
    assert forget().stdout == f"deleted {tmp_path / 'nats'}\n"
    assert not (tmp_path / "nats").exists()


async def test_it_is_stopped_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Because NATS stores nothing after a failed write, even if there is space again."""
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=disk.ROOM_BYTES))
    server = await asyncio.create_subprocess_exec("sleep", "1000")
    watching = asyncio.create_task(disk.kill_when_full(server, tmp_path, "NATS"))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=disk.ROOM_BYTES - 1))
    async with asyncio.timeout(LIMIT):
        assert await server.wait() == -signal.SIGKILL
        await watching


async def test_it_does_not_start_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=0))
    with pytest.raises(SystemExit, match="2"):
        await nats.main(Settings.model_construct(data_dir=tmp_path / "data"))
    folder = tmp_path / "data" / "nats"
    assert capsys.readouterr().err == f"the disk of {folder} is full, and NATS needs space to store events\n"
