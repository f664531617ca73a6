"""A role that is started without make: it ends with its terminal, and with its standard output."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import LIMIT, ROOT, Program, clean_environment

SERVER = [sys.executable, "-m", "1_foreground"]


def environment(tmp_path: Path) -> dict[str, str]:
    return {"PORT": "0", "SMTP_URL": "smtp://127.0.0.1:1", "DATA_DIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}


def test_a_role_stops_in_order_when_its_terminal_is_closed(tmp_path: Path) -> None:
    program = Program(SERVER, environment(tmp_path))
    program.wait_for_line("listening on")
    assert program.stop(signal.SIGHUP) == 0
    assert [line.partition(" ")[2] for line in program.lines[-2:]] == ["stopping (SIGHUP)", "stopped"]


def test_with_nohup_it_goes_on_when_its_terminal_is_closed(tmp_path: Path) -> None:
    program = Program(["nohup", *SERVER], environment(tmp_path))
    program.wait_for_line("listening on")
    program.process.send_signal(signal.SIGHUP)
    assert program.stop(signal.SIGTERM) == 0
    assert "stopping (SIGTERM)" in program.output


@pytest.mark.parametrize("package", ["1_foreground", "3_local_messages"])
def test_a_full_standard_output_stops_it_in_order(package: str, tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", package],
            cwd=ROOT,
            env=clean_environment() | environment(tmp_path),
            stdout=full,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            timeout=LIMIT,
        )
    assert (ended.returncode, ended.stderr) == (0, b"")
