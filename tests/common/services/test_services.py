"""The embedded services: shared by their users, stopped by the last one, and restarted when they are killed."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import psutil
import pytest

from common.services.service import Service, announce, claim, running
from common.settings import Settings
from tests.support.programs import ROOT, Program, ask, is_alive, wait_until
from tests.support.smtp_peer import settings


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)  # the service must not depend on the folder it is started from
    return settings(data_dir=tmp_path / "data", inbox_smtp_port=0, inbox_port=0, valkey_port=0)


def inbox_answers(service: Service) -> bool:
    try:
        return ask(f"http://127.0.0.1:{service.ports['INBOX_PORT']}", "/api/stats").status == 200
    except OSError:
        return False


def pid_of(own: Settings, name: str = "inbox") -> int:
    facts = running(own.data_dir, name)
    assert facts is not None
    return facts["pid"]


def test_it_can_be_used_at_once_and_is_stopped_afterwards(own: Settings) -> None:
    with Service(own, "inbox") as service:
        assert inbox_answers(service)
        pid = pid_of(own)
    assert running(own.data_dir, "inbox") is None
    assert not psutil.pid_exists(pid)


def test_two_users_share_it_and_the_last_one_stops_it(own: Settings) -> None:
    first, second = Service(own, "inbox"), Service(own, "inbox")
    with second:
        with first:
            assert first.ports == second.ports
        assert inbox_answers(second), "it still runs for the other user"
        pid = pid_of(own)
    assert running(own.data_dir, "inbox") is None
    wait_until(lambda: not is_alive(pid), "the service ends")


def test_a_killed_service_is_restarted_on_the_same_ports(own: Settings) -> None:
    with Service(own, "inbox") as service:
        before = service.ports
        os.kill(pid_of(own), signal.SIGKILL)
        wait_until(lambda: running(own.data_dir, "inbox") is None, "it has ended")
        assert service.ensure() is True
        assert service.ports == before
        assert inbox_answers(service)
        assert service.ensure() is False


@pytest.mark.parametrize("name", ["inbox", "valkey"])
def test_when_all_users_are_killed_it_ends_by_itself(own: Settings, name: str) -> None:
    user = Program(
        [sys.executable, "-c", "from common.services.service import *\nfrom common.settings import Settings\n"
         f"with Service(Settings(), '{name}'): print('using it', flush=True); import signal; signal.pause()"],
        {"DATA_DIR": str(own.data_dir), "INBOX_SMTP_PORT": "0", "INBOX_PORT": "0", "VALKEY_PORT": "0"},
    )  # fmt: skip
    user.wait_for_line("using it")
    pid = pid_of(own, name)
    user.stop(signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), "no terminal uses it any more")


def test_the_announcement_of_a_dead_service_is_ignored(own: Settings) -> None:
    own.data_dir.mkdir()
    (own.data_dir / "inbox.json").write_text('{"pid": 1, "inbox_smtp_port": 1, "inbox_port": 1}')
    assert running(own.data_dir, "inbox") is None
    (own.data_dir / "inbox.json").write_text("")
    assert running(own.data_dir, "inbox") is None
    with Service(own, "inbox") as service:
        assert inbox_answers(service)


def test_a_service_that_starts_never_shows_the_pid_of_its_predecessor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every moment at which the file is locked exclusively, and so is valid, it says nothing or what is true."""
    announcement = tmp_path / "inbox.json"
    announcement.write_text('{"pid": 1, "inbox_smtp_port": 1, "inbox_port": 1}')
    flock = fcntl.flock

    def look(file: IO[str], how: int) -> None:
        if how & fcntl.LOCK_EX:
            assert announcement.read_text().strip() == ""
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", look)
    with claim(tmp_path, "inbox") as file:
        assert running(tmp_path, "inbox") is None
        announce(file, 7, inbox_port=2)
        assert running(tmp_path, "inbox") == {"pid": 7, "inbox_port": 2}


@pytest.mark.parametrize(("name", "variable"), [("inbox", "INBOX_PORT"), ("valkey", "VALKEY_PORT")])
def test_a_port_in_use_means_one_clear_line_and_exit_2(own: Settings, name: str, variable: str, tmp_path: Path) -> None:
    with Service(own, name) as service:
        command = [sys.executable, "-c", "from common.services.service import *; from common.settings import *\n"
                   f"with Service(read_settings(), '{name}'): pass"]  # fmt: skip
        environment = {
            "PYTHONPATH": str(ROOT),
            "DATA_DIR": str(tmp_path / "other"),
            "INBOX_SMTP_PORT": "0",
            variable: str(service.ports[variable]),
        }
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    [line] = ended.stderr.splitlines()
    assert line.startswith(f"{variable}: ")
    assert "in use" in line
