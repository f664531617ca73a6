"""The nodes of a service that has several servers: what happens while their disk is full."""

from itertools import count
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from common.services import disk
from common.services.node import Nodes
from common.settings import Settings
from tests.support.programs import is_alive, until


async def test_nodes_whose_disk_is_full_are_killed_and_started_again_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one failed write, a nats-server has no JetStream until it is restarted."""
    free, looks = SimpleNamespace(free=disk.ROOM_BYTES), count()

    def disk_usage(folder: Path) -> SimpleNamespace:
        next(looks)
        return free

    monkeypatch.setattr("shutil.disk_usage", disk_usage)
    monkeypatch.setattr(disk, "LOOK_SECONDS", 0.01)

    def pids() -> list[int]:
        return [int(file.read_text()) for file in sorted(tmp_path.glob("*.pid"))]

    nodes = Nodes(Settings.model_construct(redis_server=None), tmp_path, 0)
    try:
        nodes.run({name: ["sleep", "1000"] for name in ("node-1", "node-2")}, 0.0, needs_room=True)
        await until(lambda: len(pids()) == 2, "both are started")
        before = pids()
        free.free = disk.ROOM_BYTES - 1
        await until(lambda: not any(map(is_alive, before)), "both are killed")
        after = next(looks) + 20
        await until(lambda: next(looks) > after, "the disk is checked again")
        assert pids() == before, "none is started on a full disk"
        free.free = disk.ROOM_BYTES
        await until(lambda: not set(before) & set(pids()), "both are started again")
        assert all(map(psutil.pid_exists, pids()))
    finally:
        await nodes.stop()


async def test_other_nodes_do_not_look_at_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=0))
    nodes = Nodes(Settings.model_construct(redis_server=None), tmp_path, 0)
    try:
        nodes.run({"node-1": ["sleep", "1000"]})
        await until((tmp_path / "node-1.pid").exists, "it is started")
    finally:
        await nodes.stop()
