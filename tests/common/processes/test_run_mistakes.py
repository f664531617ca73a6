"""`make`: a mistake means one clear line and exit status 2; the list of commands; what `make diff-N` shows."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import STRATEGIES
from tests.support.programs import LIMIT, ROOT, Program
from tests.support.runner import run_to_its_end


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
    listed = printed.partition(f"\nnew in {after}:\n")[2].partition("\n\n")[0]
    new = re.findall(r"^ +\d+ lines  (\S+)", listed, re.MULTILINE)
    ideas = re.findall(r"^ +\d+ lines  (\S+) +The one new idea: ", listed, re.MULTILINE)
    assert ideas[:1] == new[: len(ideas)], "the file with the new idea comes first"
    files = {
        str(p.relative_to(ROOT / after))
        for p in (ROOT / after).rglob("*")
        if p.is_file() and p.suffix != ".pyc" and p.name != "README.md"
    }
    assert set(new) == {name for name in files if not (ROOT / before / name).exists()}
    assert not re.search(r"^(\+\+\+|---) .*\d\d:\d\d", printed, re.MULTILINE), "no times"


@pytest.mark.parametrize("name", [STRATEGIES[0], STRATEGIES[4]])  # without and with other roles
def test_a_port_in_use_means_one_clear_line_and_exit_2(name: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, lines = run_to_its_end(["make", f"run-{name[0]}"], tmp_path, PORT=str(port))
    assert status == 2
    assert lines == [f"PORT: port {port} on 127.0.0.1 is in use; choose another, or 0 for any free one"]


def test_a_bad_smtp_url_means_one_clear_line_and_exit_2(tmp_path: Path) -> None:
    status, lines = run_to_its_end(["make", "run-1"], tmp_path, SMTP_URL="smpt://jo:secret@mail.example.com")
    assert (status, lines) == (2, ["SMTP_URL: must begin with smtp:// or smtps://"])


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


@pytest.mark.parametrize("package", ["4_remote_messages", "5_remote_queue", "6_event_bus"])
def test_an_unknown_role_is_refused(package: str, tmp_path: Path) -> None:
    environment = {"PORT": "0", "REDIS_URL": "redis://127.0.0.1:1", "DATA_DIR": str(tmp_path)}
    program = Program([sys.executable, "-m", package, "wroker"], environment)
    program.wait_for_line(rf"^usage: `python -m {package} \[server \| worker")
    assert program.process.wait(LIMIT) == 2
    program.stop()


def test_without_an_argument_it_prints_one_usage_line_and_exits_with_2(tmp_path: Path) -> None:
    status, lines = run_to_its_end([sys.executable, "-m", "common.processes.run"], tmp_path)
    assert (status, lines) == (2, ["usage: python -m common.processes.run [1 to 6 | services]"])
