"""The embedded Valkey, whose data is kept."""

import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from redis import Redis

from common.services.server_program import PORTS_TO_TRY
from common.services.service import Service, running
from common.settings import VALKEY_PORT, Settings
from tests.support.programs import LIMIT, ROOT, Program, is_alive, open_users_lock, wait_until
from tests.support.servers import valkey_of
from tests.support.smtp_peer import settings


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)  # the service must not depend on the folder it is started from
    return settings(data_dir=tmp_path / "my data", valkey_port=0)


def client(service: Service) -> Redis:
    return Redis(port=service.ports["VALKEY_PORT"], protocol=2, decode_responses=True, socket_timeout=LIMIT)


def pid_of(own: Settings) -> int:
    return valkey_of(own.data_dir).pid


def supervisor_of(pid: int) -> psutil.Process:
    found = psutil.Process(pid).parent()
    assert found is not None
    assert "common.services.valkey" in found.cmdline()
    return found


def test_it_can_be_used_at_once_and_is_stopped_afterwards(own: Settings) -> None:
    with Service(own, "valkey") as service, client(service) as valkey:
        assert valkey.ping()
        pid = pid_of(own)
        supervisor = supervisor_of(pid)
    assert running(own.data_dir, "valkey") is None
    wait_until(lambda: not is_alive(pid), "Valkey has ended")
    assert not supervisor.is_running()


def test_answered_writes_are_on_disk_and_it_listens_only_on_loopback(own: Settings) -> None:
    with Service(own, "valkey") as service, client(service) as valkey:
        for name, value in {
            "appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction", "save": "",
            "bind": "127.0.0.1", "dir": str(own.data_dir / "valkey"),
        }.items():  # fmt: skip
            assert valkey.config_get(name) == {name: value}
    assert "Ready to accept connections" in (own.data_dir / "valkey.log").read_text()


def test_the_data_is_kept_between_runs(own: Settings) -> None:
    with Service(own, "valkey") as service, client(service) as valkey:
        valkey.set("kept", "yes")
    with Service(own, "valkey") as service, client(service) as valkey:
        assert valkey.get("kept") == "yes"


def test_two_users_share_it_and_the_last_one_stops_it(own: Settings) -> None:
    first, second = Service(own, "valkey"), Service(own, "valkey")
    with second:
        with first:
            assert first.ports == second.ports
        with client(second) as valkey:
            assert valkey.ping(), "it still runs for the other user"
    assert running(own.data_dir, "valkey") is None


def test_a_killed_valkey_is_restarted_on_the_same_port_with_all_answered_writes(own: Settings) -> None:
    with Service(own, "valkey") as service:
        before = service.ports
        with client(service) as valkey:
            for number in range(100):
                valkey.rpush("list", number)
        os.kill(pid_of(own), signal.SIGKILL)
        wait_until(lambda: running(own.data_dir, "valkey") is None, "both processes have ended")
        assert service.ensure() is True
        assert service.ports == before
        with client(service) as valkey:
            assert valkey.llen("list") == 100
        assert service.ensure() is False


def test_when_its_supervisor_is_killed_it_goes_on_and_the_last_user_stops_it(own: Settings) -> None:
    with Service(own, "valkey") as service:
        pid = pid_of(own)
        supervisor = supervisor_of(pid)
        supervisor.kill()
        with client(service) as valkey:
            assert valkey.ping()
        assert service.ensure() is False, "nothing has to be started"
        with Service(own, "valkey") as another:
            assert another.ports == service.ports
    assert running(own.data_dir, "valkey") is None
    wait_until(lambda: not is_alive(pid), "Valkey has ended")


def test_a_stopped_supervisor_stops_valkey_first(own: Settings) -> None:
    with open_users_lock(own.data_dir, "valkey"):
        program = Program(
            [sys.executable, "-m", "common.services.valkey"], {"DATA_DIR": str(own.data_dir), "VALKEY_PORT": "0"}
        )
        program.wait_for_line("Valkey listens")
        program.stop()
    assert "ready to exit, bye bye" in program.output
    assert running(own.data_dir, "valkey") is None


def test_a_supervisor_stopped_during_its_start_leaves_no_valkey_behind(own: Settings) -> None:
    with open_users_lock(own.data_dir, "valkey"):
        program = Program(
            [sys.executable, "-m", "common.services.valkey"], {"DATA_DIR": str(own.data_dir), "VALKEY_PORT": "0"}
        )
        wait_until(program.descendants, "Valkey has been started")
        assert program.stop() == 0
    assert running(own.data_dir, "valkey") is None


def test_two_that_start_at_the_same_time_use_two_ports(tmp_path: Path) -> None:
    with ExitStack() as stack:
        programs = []
        for name in ("first", "second", "third"):
            stack.enter_context(open_users_lock(tmp_path / name, "valkey"))
            program = Program([sys.executable, "-m", "common.services.valkey"], {"DATA_DIR": str(tmp_path / name)})
            stack.callback(program.stop)
            programs.append(program)
        ports = {int(program.wait_for_line(r"Valkey listens on 127.0.0.1 port (\d+)")[1]) for program in programs}
        assert len(ports) == 3
        assert ports <= set(range(VALKEY_PORT, VALKEY_PORT + PORTS_TO_TRY))
        for name in ("first", "second", "third"):
            facts = running(tmp_path / name, "valkey")
            assert facts is not None
            valkey = Redis(port=facts["valkey_port"], protocol=2)
            assert valkey.info("server")["process_id"] == facts["pid"], "each has found its own"
            valkey.close()


def test_a_file_that_ends_in_the_middle_of_a_write_is_read_up_to_there(own: Settings) -> None:
    with Service(own, "valkey") as service, client(service) as valkey:
        valkey.set("first", "kept")
        valkey.set("second", "cut off")
    [file] = (own.data_dir / "valkey" / "appendonlydir").glob("*.incr.aof")
    os.truncate(file, file.stat().st_size - 3)
    with Service(own, "valkey") as service, client(service) as valkey:
        assert valkey.mget("first", "second") == ["kept", None]


def test_an_unreadable_file_means_one_line_that_names_the_log(own: Settings) -> None:
    with Service(own, "valkey") as service, client(service) as valkey:
        valkey.set("first", "kept")
    [file] = (own.data_dir / "valkey" / "appendonlydir").glob("*.incr.aof")
    file.write_bytes(b"rubbish\r\n" * 10)
    with pytest.raises(SystemExit), Service(own, "valkey"):
        pass
    assert "Bad file format" in (own.data_dir / "valkey.log").read_text()
    assert running(own.data_dir, "valkey") is None


def test_a_missing_manifest_means_a_refusal_and_not_an_empty_valkey(
    own: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    with Service(own, "valkey") as service, client(service) as valkey:
        valkey.set("first", "kept")
    (own.data_dir / "valkey" / "appendonlydir" / "appendonly.aof.manifest").unlink()
    with pytest.raises(SystemExit), Service(own, "valkey"):
        pass
    assert "no appendonly.aof.manifest: restore this file" in capfd.readouterr().err


def test_only_the_owner_can_read_the_data_even_of_an_older_version(own: Settings) -> None:
    folder = own.data_dir / "valkey" / "appendonlydir"
    for _ in range(2):
        with Service(own, "valkey") as service, client(service) as valkey:
            valkey.set("first", "kept")
            found = {path: path.stat().st_mode & 0o777 for path in (own.data_dir, folder.parent, *folder.iterdir())}
            assert all(mode & 0o077 == 0 for mode in found.values()), found
        for path in (own.data_dir, folder.parent, *folder.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)
