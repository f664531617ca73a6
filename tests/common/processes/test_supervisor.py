"""What the runner does when a role ends."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from common.processes import supervisor
from common.processes.pid_files import PidFile
from common.processes.supervisor import Child, Stop
from tests.support.programs import LIMIT, until


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the runner and the role print."""
    shown: list[str] = []
    monkeypatch.setattr(supervisor, "RESTART_SECONDS", 0.05)

    def show(text: str) -> bool:
        shown.append(text)
        return True

    monkeypatch.setattr(supervisor, "show", show)
    return shown


def child(role: str, stop: Stop, folder: Path) -> Child:
    return Child("tests.support.odd_role", role, {}, stop, PidFile(folder, role))


@pytest.mark.parametrize("role", ["at-start", "looking"])
async def test_a_role_that_has_not_started_reports_by_its_exit_status_that_a_setting_is_wrong(
    role: str, lines: list[str], tmp_path: Path
) -> None:
    async with asyncio.timeout(LIMIT):
        assert await child(role, Stop(), tmp_path).keep_running() == 2
    assert lines == []


async def test_a_role_whose_tasks_are_all_cancelled_ends_at_once(lines: list[str], tmp_path: Path) -> None:
    """It does not wait for what its main task does after the cancellation, which may never end."""
    stop = Stop()
    role = child("cancels", stop, tmp_path)
    running = asyncio.create_task(role.keep_running())
    try:
        await until(lambda: any("ended with exit status 1; starting it again" in line for line in lines))
    finally:
        stop.request()
        await role.end(1)
        await running


async def test_a_role_that_has_started_is_started_again_whatever_its_exit_status(
    lines: list[str], tmp_path: Path
) -> None:
    stop = Stop()
    running = asyncio.create_task(child("later", stop, tmp_path).keep_running())
    await until(lambda: sum("ended with exit status 2; starting it again" in line for line in lines) == 2)
    stop.request()
    assert await running == 0


async def test_a_process_that_a_role_has_left_behind_does_not_delay_its_restart(
    lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "RELAY_SECONDS", 0.05)
    stop = Stop()
    running = asyncio.create_task(child("parent", stop, tmp_path).keep_running())
    try:
        await until(lambda: any("starting it again" in line for line in lines))
    finally:
        stop.request()
        await running
        for line in "".join(lines).splitlines():
            if "] left " in line:
                os.kill(int(line.rpartition(" ")[2]), signal.SIGKILL)
