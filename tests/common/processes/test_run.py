"""`make run-N`: one command starts everything, restarts what is killed, and leaves nothing behind."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from common.processes.chapter import chapter_module
from common.processes.run import chosen_roles
from common.settings import Settings
from lab.harness.processes import still_alive
from tests.conftest import STRATEGIES
from tests.support.programs import LIMIT, ROOT, SETTINGS, Program, ask, is_alive, running_strategy, wait_until
from tests.support.runner import FREE_PORTS, in_a_terminal, run_to_its_end
from tests.support.servers import running_valkey


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def is_closed(url: str) -> bool:
    try:
        ask(url, "/stats")
    except OSError:
        return True
    return False


# One server; a master with children; three roles and Redis; a role that runs two engines.


@pytest.mark.parametrize("name", [STRATEGIES[0], STRATEGIES[2], STRATEGIES[4], STRATEGIES[5]])
def test_ctrl_c_ends_everything_with_exit_0_and_leaves_nothing_behind(name: str, tmp_path: Path) -> None:
    with in_a_terminal(["make", f"run-{name[0]}"], FREE_PORTS | {"DATA_DIR": str(tmp_path)}) as terminal:
        url = terminal.read_until(rf"{name} listens on (http://\S+)/\s")[1]
        example = terminal.read_until(r"send an email +(http://\S+)\s")[1]
        inbox = terminal.read_until(r"see it arrive +(http://\S+)/ \[inbox @ \d+\]\s")[1]
        assert ask(url, example.removeprefix(url)).status < 300
        wait_until(lambda: ask(inbox, "/api/stats").json["received"] == 1, "the example in the inbox")
        family = descendants(terminal.pid)
        assert len(family) >= 3  # the runner, the inbox, at least one role
        terminal.type(b"\x03")
        assert terminal.exit_status() == 0
        assert still_alive(family, LIMIT) == []
    assert is_closed(url)
    assert is_closed(inbox)
    assert "Traceback" not in terminal.output


@pytest.mark.parametrize("after", [0.1, 0.25, 0.4, 0.6])
def test_ctrl_c_during_the_start_ends_everything_too(after: float, tmp_path: Path) -> None:
    with in_a_terminal(["make", "run-1"], FREE_PORTS | {"DATA_DIR": str(tmp_path)}) as terminal:
        wait_until(lambda: descendants(terminal.pid), "the first process has started")
        before = time.monotonic()
        wait_until(lambda: time.monotonic() - before > after, "the start goes on")
        terminal.type(b"\x03")
        # In its first milliseconds Python may lose one, for which a reader would press again, or end by itself with an
        # error that make reports by a 2. Who is told later ends well, and in between the signal itself ends it.
        assert terminal.exit_status(limit=10.0, otherwise=b"\x03") in (0, 2, -signal.SIGINT)
    wait_until(lambda: not left_of(tmp_path), "all processes have ended")


def left_of(data_dir: Path) -> list[psutil.Process]:
    """All processes that have this DATA_DIR."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("DATA_DIR") == str(data_dir) and is_alive(process):
                found.append(process)
    return found


def test_a_killed_server_is_restarted_on_the_same_port(tmp_path: Path) -> None:
    with running_strategy("1_foreground", tmp_path, SMTP_URL="smtp://127.0.0.1:1") as strategy:
        pid = strategy.pid()
        strategy.kill("server")
        strategy.program.wait_for_line(
            rf"^\[runner @ \d+\] server @ {pid} was killed by SIGKILL; starting it again in 1 s"
        )
        wait_until(lambda: not is_closed(strategy.url), "the server listens on the same port")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot reserve a port")
def test_no_other_program_gets_the_port_while_a_killed_server_is_down(tmp_path: Path) -> None:
    with running_strategy("1_foreground", tmp_path, SMTP_URL="smtp://127.0.0.1:1") as strategy:
        pid = strategy.pid()  # no request before the check: a connection in TIME_WAIT would block the port, too
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid), "the server is down")
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", int(strategy.url.rpartition(":")[2])))
        wait_until(lambda: not is_closed(strategy.url), "the server listens on the same port")


def test_the_pids_of_the_roles_and_services_are_in_files(tmp_path: Path) -> None:
    def pids(name: str) -> list[int]:
        return [int(line) for line in (tmp_path / f"{name}.pid").read_text().splitlines()]

    with running_strategy("5_remote_queue", tmp_path, WORKERS="2") as strategy:
        assert pids("server") == [strategy.pid()]
        wait_until(lambda: len(pids("worker")) == 2, "two workers")
        assert all(is_alive(pid) for name in ("server", "worker", "valkey", "inbox") for pid in pids(name))
        strategy.kill("server")
        assert pids("server") == [strategy.pid()]
    assert not list(tmp_path.glob("*.pid"))
    with running_strategy("3_local_messages", tmp_path) as strategy:
        assert (pids("master"), pids("web-server")) == ([strategy.pid("master")], [strategy.pid("web server")])
        strategy.kill("email worker")
        assert pids("email-worker") == [strategy.pid("email worker")]
    assert not list(tmp_path.glob("*.pid"))


def test_a_killed_inbox_is_restarted_on_the_same_ports(tmp_path: Path) -> None:
    with running_strategy("1_foreground", tmp_path, INBOX_SMTP_PORT="0", INBOX_PORT="0") as strategy:
        from common.services.service import running

        facts = running(tmp_path, "inbox")
        assert facts is not None
        os.kill(facts["pid"], signal.SIGKILL)
        strategy.program.wait_for_line("inbox was not running; it has been started again")
        assert strategy.send("bob@example.com").status == 200


@pytest.mark.parametrize("victim", ["make", "runner"])
def test_when_the_parent_is_killed_everything_ends(victim: str, tmp_path: Path) -> None:
    program = Program(["make", "run-1"], FREE_PORTS | {"DATA_DIR": str(tmp_path)})
    try:
        program.wait_for_line("listens on")
        family = program.descendants()
        runner = next(p for p in family if "common.processes.run" in p.cmdline())
        (program.process if victim == "make" else runner).kill()
        assert still_alive(family, LIMIT) == []
    finally:
        program.stop()


def test_a_single_role_can_be_started_without_make(tmp_path: Path) -> None:
    environment = {"PORT": "0", "SMTP_URL": "smtp://127.0.0.1:1", "DATA_DIR": str(tmp_path)}
    program = Program([sys.executable, "-m", "1_foreground"], environment)
    url = program.wait_for_line(r"listening on (http://\S+)/")[1]
    assert ask(url, "/stats").status == 200
    assert program.stop(signal.SIGINT) == 0


def test_forget_deletes_the_data_of_valkey_but_not_while_it_runs(tmp_path: Path) -> None:
    with running_valkey(tmp_path) as valkey:
        status, lines = run_to_its_end(["make", "forget"], tmp_path)
        assert (status, lines) == (2, [f"Valkey is running @ {valkey.pid}: stop the programs that use it first"])
    assert (tmp_path / "valkey").exists()
    assert run_to_its_end(["make", "forget"], tmp_path) == (0, [f"deleted {tmp_path / 'valkey'}"])
    assert not (tmp_path / "valkey").exists()
    assert run_to_its_end(["make", "forget"], tmp_path) == (0, [])


def test_two_terminals_share_the_services(tmp_path: Path) -> None:
    environment = FREE_PORTS | {"DATA_DIR": str(tmp_path)}
    services = Program(["make", "services"], environment)
    try:
        inbox = services.wait_for_line(r"the inbox is at (http://\S+)/")[1]
        with running_strategy("1_foreground", tmp_path, INBOX_SMTP_PORT="0", INBOX_PORT="0") as strategy:
            assert strategy.send("bob@example.com").status == 200
            assert ask(inbox, "/api/stats").json["received"] == 1
        assert ask(inbox, "/api/stats").json["received"] == 1, "the first terminal still uses the inbox"
    finally:
        services.stop()
    assert is_closed(inbox)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_start_of_a_service_ends_the_runner_at_once(number: signal.Signals, tmp_path: Path) -> None:
    with open(tmp_path / "inbox.lock", "w") as lock:  # as if another terminal were starting the inbox, slowly
        fcntl.flock(lock, fcntl.LOCK_EX)
        program = Program([sys.executable, "-m", "common.processes.run", "1"], FREE_PORTS | {"DATA_DIR": str(tmp_path)})
        wait_until(lambda: (tmp_path / "inbox.users").exists(), "the runner waits for the inbox")
        assert program.stop(number) == 0
    assert "Traceback" not in program.output


def test_sighup_to_make_as_session_leader_ends_everything(tmp_path: Path) -> None:
    program = Program(["make", "run-1"], FREE_PORTS | {"DATA_DIR": str(tmp_path)})
    program.wait_for_line("stop it all")
    program.stop(signal.SIGHUP)
    assert "Traceback" not in program.output


@pytest.mark.parametrize("output", ["pipe", "/dev/full"])
def test_a_closed_or_full_standard_output_ends_everything_in_order(output: str, tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    settings = FREE_PORTS | {"DATA_DIR": str(tmp_path)}
    reader, writer = os.pipe() if output == "pipe" else (None, os.open(output, os.O_WRONLY))
    if reader is not None:
        os.close(reader)
    program = subprocess.Popen(
        [sys.executable, "-m", "common.processes.run", "1"],
        cwd=ROOT,
        env=clean | settings,
        stdout=writer,
        stderr=subprocess.PIPE,
    )
    os.close(writer)
    _, errors = program.communicate(timeout=LIMIT)
    assert (program.returncode, errors) == (0, b"")
    assert left_of(tmp_path) == []


def test_a_full_disk_means_503_until_there_is_room_again(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("a small tmpfs cannot be mounted here")
    try:
        environment = FREE_PORTS | {"SMTP_URL": "smtp://127.0.0.1:1"}
        with running_strategy("5_remote_queue", disk / "data", **environment) as strategy:
            wait_until(strategy.healthy, "an email can be accepted")
            with open(disk / "ballast", "wb", buffering=0) as ballast, suppress(OSError):
                while ballast.write(b"x" * 4096):
                    pass
            wait_until(lambda: strategy.send("bob@example.com", text="x" * 2000).status == 503, "the disk is full")
            strategy.program.wait_for_line("valkey was not running; it has been started again")
            (disk / "ballast").unlink()
            wait_until(lambda: strategy.send("bob@example.com").status == 202, "there is room again")
            assert strategy.program.process.poll() is None
        assert "Traceback" not in strategy.program.output
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_the_scheduler_starts_only_with_a_schedule_or_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries with a pause do not need it: test_5_remote_queue.py tests that the workers promote delayed jobs."""
    package = "5_remote_queue"
    assert chosen_roles(Settings(), package) == ["server", "worker"]
    assert chosen_roles(Settings(role="scheduler"), package) == ["scheduler"]
    monkeypatch.setattr(chapter_module(package), "NOT_NEEDED", ())
    assert chosen_roles(Settings(), package) == ["server", "worker", "scheduler"]
