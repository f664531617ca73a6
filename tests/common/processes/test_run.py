"""`make run-N`: one command starts everything, restarts what is killed, and leaves nothing behind."""

import fcntl
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from common.processes.chapter import chapter_module
from common.processes.run import chosen_roles
from common.settings import Settings
from lab.harness.processes import still_alive
from tests.conftest import STRATEGIES
from tests.support.programs import (
    LIMIT,
    ROOT,
    SETTINGS,
    Program,
    ask,
    is_alive,
    running_strategy,
    running_valkey,
    wait_until,
)

FREE_PORTS = {"PORT": "0", "INBOX_SMTP_PORT": "0", "INBOX_PORT": "0", "VALKEY_PORT": "0"}


class Terminal:
    """A program in its own terminal, as a reader runs it."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        clean = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            os.execvpe(command[0], command, clean | environment)
        self.output = ""

    def type(self, keys: bytes) -> None:
        os.write(self.terminal, keys)

    def read_until(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + LIMIT
        while not (match := re.search(pattern, self.output)):
            assert time.monotonic() < deadline, f"no {pattern!r} in:\n{self.output}"
            self._read()
        return match

    def exit_status(self, limit: float = LIMIT, otherwise: bytes = b"") -> int:
        """Wait `seconds` for the end; then type `text`, and wait again."""
        deadline = time.monotonic() + limit
        while (ended := os.waitpid(self.pid, os.WNOHANG))[0] == 0:
            if otherwise and time.monotonic() > deadline:
                self.type(otherwise)
                deadline, otherwise = time.monotonic() + limit, b""
            assert time.monotonic() < deadline, f"still running:\n{self.output}"
            self._read()
        return os.waitstatus_to_exitcode(ended[1])

    def _read(self) -> None:
        if select.select([self.terminal], [], [], 0.01)[0]:
            with suppress(OSError):
                self.output += os.read(self.terminal, 65536).decode(errors="replace")


@contextmanager
def in_a_terminal(command: list[str], environment: dict[str, str]) -> Iterator[Terminal]:
    terminal = Terminal(command, environment)
    try:
        yield terminal
    finally:
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(terminal.pid).children(recursive=True):
                process.kill()
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(terminal.pid, signal.SIGKILL)
            os.waitpid(terminal.pid, 0)
        os.close(terminal.terminal)


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def is_closed(url: str) -> bool:
    try:
        ask(url, "/stats")
    except OSError:
        return True
    return False


@pytest.mark.parametrize("name", STRATEGIES)
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
        assert terminal.exit_status(limit=LIMIT / 2, otherwise=b"\x03") in (0, 2, -signal.SIGINT)
    wait_until(lambda: not left_of(tmp_path), "all processes have ended")


def left_of(data_dir: Path) -> list[psutil.Process]:
    """All processes that have this DATA_DIR."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("DATA_DIR") == str(data_dir) and is_alive(process):
                found.append(process)
    return found


def test_make_without_a_target_lists_the_commands() -> None:
    alone = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for command in ("run-", "services", "test", "check", "bench", "diff-", "clean"):
        assert f"make {command}" in alone


@pytest.mark.parametrize("number", [int(name[0]) for name in STRATEGIES[1:]])
def test_a_diff_shows_the_files_in_reading_order_and_lists_the_new_ones(number: int) -> None:
    before, after = STRATEGIES[number - 2 : number]
    printed = subprocess.run(["make", f"diff-{number}"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    both = re.findall(rf"^\+\+\+ {after}/(\S+)$", printed, re.MULTILINE)
    first = [name for name in ("__init__.py", "__main__.py", "server.py", "worker.py") if name in both]
    assert both[: len(first)] == first
    new = re.findall(
        r"^ +\d+ lines  (\S+)", printed.partition(f"\nnew in {after}:\n")[2].partition("\n\n")[0], re.MULTILINE
    )
    files = {
        str(p.relative_to(ROOT / after))
        for p in (ROOT / after).rglob("*")
        if p.is_file() and p.suffix != ".pyc" and p.name != "README.md"
    }
    assert set(new) == {name for name in files if not (ROOT / before / name).exists()}
    assert not re.search(r"^(\+\+\+|---) .*\d\d:\d\d", printed, re.MULTILINE), "no times"


def run_to_its_end(
    command: list[str], tmp_path: Path, limit: float = LIMIT, **environment: str
) -> tuple[int, list[str]]:
    program = Program(command, FREE_PORTS | {"DATA_DIR": str(tmp_path)} | environment)
    try:
        program.process.wait(limit)
    finally:
        status = program.stop()
    return status, [line for line in program.lines if not line.startswith("make: ")]


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_port_in_use_means_one_clear_line_and_exit_2(name: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, lines = run_to_its_end(["make", f"run-{name[0]}"], tmp_path, PORT=str(port))
    assert status == 2
    assert lines == [f"PORT: port {port} on 127.0.0.1 is in use; choose another, or 0 for any free one"]


def test_a_bad_smtp_url_means_one_clear_line_and_exit_2(tmp_path: Path) -> None:
    status, lines = run_to_its_end(["make", "run-1"], tmp_path, SMTP_URL="smpt://jo:secret@mail.example.com")
    assert (status, lines) == (2, ["SMTP_URL: must begin with smtp:// or smtps://"])


@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    ("number", "environment", "line"),
    [
        ("9", {}, "there is no strategy 9"),
        ("1", {"ROLE": "worker"}, "ROLE: 1_foreground has the roles server"),
        ("3", {"WORKERS": "2"}, "WORKERS: 3_local_messages runs one process of each role"),
        ("1", {"HOST": "no.such.host.invalid"}, "HOST: no.such.host.invalid is not"),
        ("1", {"HOST": "192.0.2.1"}, "HOST: 192.0.2.1 is not"),
    ],
)
def test_other_mistakes_mean_one_clear_line_too(
    number: str, environment: dict[str, str], line: str, tmp_path: Path
) -> None:
    # Without a network, the lookup of an unknown host may take long.
    status, lines = run_to_its_end(["make", f"run-{number}"], tmp_path, limit=60.0, **environment)
    assert status == 2
    assert len(lines) == 1
    assert lines[0].startswith(line)


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


@pytest.mark.parametrize("package", ["4_remote_messages", "5_remote_queue", "6_event_bus"])
def test_an_unknown_role_is_refused(package: str, tmp_path: Path) -> None:
    environment = {"PORT": "0", "REDIS_URL": "redis://127.0.0.1:1", "DATA_DIR": str(tmp_path)}
    program = Program([sys.executable, "-m", package, "wroker"], environment)
    program.wait_for_line(rf"^usage: `python -m {package} \[server \| worker")
    assert program.process.wait(LIMIT) == 2
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


def test_without_an_argument_it_prints_one_usage_line_and_exits_with_2(tmp_path: Path) -> None:
    status, lines = run_to_its_end([sys.executable, "-m", "common.processes.run"], tmp_path)
    assert (status, lines) == (2, ["usage: python -m common.processes.run [1 to 6 | services | forget]"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_start_of_a_service_ends_the_runner_at_once(number: signal.Signals, tmp_path: Path) -> None:
    with open(tmp_path / "inbox.lock", "w") as lock:  # as if another terminal were starting the inbox, slowly
        fcntl.flock(lock, fcntl.LOCK_EX)
        program = Program([sys.executable, "-m", "common.processes.run", "1"], FREE_PORTS | {"DATA_DIR": str(tmp_path)})
        wait_until(lambda: (tmp_path / "inbox.users").exists(), "the runner waits for the inbox")
        assert program.stop(number, limit=5.0) == 0
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


@pytest.mark.timeout(90)
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
