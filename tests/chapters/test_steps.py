"""The steps of chapters 3, 5 and 6: how long they are, how little neighbours differ, and what `make diff-N` shows."""

import subprocess
from pathlib import Path

import pytest

from common.processes.step_diff import differences, files_of
from common.processes.steps import steps_of
from tests.support.programs import LIMIT, ROOT, Program, clean_environment

LONGEST = {
    ("3_local_messages", "pass_on"): 165,
    ("5_remote_queue", "pop"): 60,
    ("5_remote_queue", "move"): 80,
    ("5_remote_queue", "lease"): 150,
    ("6_event_bus", "cursor_first"): 80,
    ("6_event_bus", "commit_after"): 100,
    ("6_event_bus", "group"): 120,
}
"""Lines of a step with the Lua scripts that it calls itself."""
MOST_NEW = 45
"""Lines of a step's module that are not in the step before it."""


def run_diff(number: int, step: str) -> subprocess.CompletedProcess[str]:
    environment = clean_environment() | {"STEP": step}
    return subprocess.run(
        ["make", "--no-print-directory", f"diff-{number}"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip


def test_every_step_is_listed() -> None:
    there = [(package, step) for package in sorted({package for package, _ in LONGEST}) for step in steps_of(package)]
    assert there == list(LONGEST)


@pytest.mark.parametrize(("package", "step"), LONGEST)
def test_a_step_is_short(package: str, step: str) -> None:
    module, *others = files_of(package, step)
    scripts = [path for path in others if path.suffix == ".lua" and path.name != "append.lua"]  # the producer's
    assert sum(len(path.read_text().splitlines()) for path in (module, *scripts)) <= LONGEST[package, step]


@pytest.mark.parametrize(("package", "step"), LONGEST)
def test_a_step_differs_little_from_the_one_before(package: str, step: str) -> None:
    if step == next(iter(steps_of(package))):
        assert next(differences(package, step)) == f"==> {package}/steps/{step}.py"
        return
    lines = list(differences(package, step))
    ends = [number for number, line in enumerate(lines) if line.startswith(("--- ", "not used"))]
    own = lines[2 : ends[1] if len(ends) > 1 else None]
    assert 0 < sum(line.startswith("+") for line in own) <= MOST_NEW


def test_the_first_step_is_shown_whole() -> None:
    shown = run_diff(5, "pop")
    assert shown.returncode == 0, shown.stderr
    for name in ("pop.py", "job.py"):
        assert f"==> 5_remote_queue/steps/{name}\n{Path(f'5_remote_queue/steps/{name}').read_text()}" in shown.stdout


def test_a_later_step_is_shown_as_a_diff_file_by_file() -> None:
    shown = run_diff(5, "lease")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("--- 5_remote_queue/steps/move.py\n+++ 5_remote_queue/steps/lease.py\n@@ ")
    scripts = [line for line in shown.stdout.splitlines() if line.startswith("+++ ") and line.endswith(".lua")]
    assert scripts == [f"+++ 5_remote_queue/steps/lua/{name}.lua" for name in ("beat", "claim", "reap", "settle")]
    assert "job.py" not in "".join(line for line in shown.stdout.splitlines() if line.startswith(("+++", "---")))


def test_a_file_that_is_not_used_any_more_is_named() -> None:
    assert "not used any more: 6_event_bus/steps/lua/next.lua" in list(differences("6_event_bus", "commit_after"))


@pytest.mark.parametrize(
    ("number", "step", "said"),
    [
        (5, "nonsense", "STEP: 5_remote_queue has the steps pop, move, lease"),
        (4, "pop", "STEP: 4_remote_messages has no steps"),
        (9, "pop", "there is no strategy 9; choose from 1, 2, 3, 4, 5, 6"),
    ],
)
def test_a_bad_step_is_one_line(number: int, step: str, said: str) -> None:
    shown = run_diff(number, step)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert shown.stderr.splitlines()[0] == said
    assert "Traceback" not in shown.stderr


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (1, "STEP: 1_foreground has no steps"),
        (3, "STEP: 3_local_messages has the steps pass_on"),
        (5, "STEP: 5_remote_queue has the steps pop, move, lease"),
    ],
)
def test_a_strategy_with_a_bad_step_does_not_start(number: int, said: str, tmp_path: Path) -> None:
    program = Program(["make", f"run-{number}"], {"STEP": "nonsense", "DATA_DIR": str(tmp_path), "PORT": "0"})
    program.wait_for_line(said)
    assert program.process.wait(LIMIT) == 2
    program.stop()
    assert "Traceback" not in program.output
