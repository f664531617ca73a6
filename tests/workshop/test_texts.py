"""The texts of the workshop: every command in them works, the minutes add up, and every error message is real."""

import os
import random
import re
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from common.address import free_port
from common.processes.run import find_package
from common.settings import PORTS
from tests.support.programs import ROOT, Program, clean_environment
from workshop.course import exercises

START_SECONDS, INSTALL_SECONDS = 60.0, 400.0  # on a busy machine
PLAN, PARTICIPANTS = ROOT / "workshop" / "README.md", ROOT / "workshop" / "PARTICIPANTS.md"
TEXTS = [PLAN, PARTICIPANTS, *(exercise.folder / "README.md" for exercise in exercises())]
HERE = {
    "make exercise", "make slides", "make wheelhouse", "make run-1 WHEELHOUSE=wheelhouse",
    "make exercise WHEELHOUSE=wheelhouse", "make run-1 PORT_BASE=9000",
}  # fmt: skip
"""Commands that the tests of this folder run, some of them through what `make` runs."""


def commands(text: str) -> list[str]:
    blocks = re.findall(r"(?ms)^```sh\n(.*?)^```", text)
    return [line for block in blocks for line in block.splitlines()]


def rows(heading: str) -> list[list[str]]:
    """The rows of the table that follows this heading of the plan, without its head."""
    section = PLAN.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_command_is_run_by_a_test(path: Path) -> None:
    """Either in the session of a chapter, which tests/chapters/sessions pastes into bash, or here."""
    of_chapters = {line for chapter in ROOT.glob("[1-6]_*/README.md") for line in commands(chapter.read_text())}
    assert not [line for line in commands(path.read_text()) if line not in of_chapters | HERE]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        found = (path.parent / name).resolve() if name else path
        assert found.exists(), target
        headings = re.findall(r"(?m)^#+ (.+)$", found.read_text()) if anchor else []
        anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert not anchor or anchor in anchors, target


@pytest.mark.parametrize(("heading", "minutes"), [("Two hours", 120), ("Half a day", 240)])
def test_the_minutes_add_up(heading: str, minutes: int) -> None:
    of_exercise = {str(exercise.number): exercise.minutes for exercise in exercises()}
    clock = 0
    for begins, length, part, *numbers in rows(heading):
        assert begins == f"{clock // 60}:{clock % 60:02}", part
        clock += int(length)
        assert sum(of_exercise[number] for number in numbers[0].replace(",", " ").split()) <= int(length), part
    assert clock == minutes


def test_half_a_day_has_all_exercises_in_their_order() -> None:
    numbers = " ".join(row[3] for row in rows("Half a day")).replace(",", " ").split()
    assert numbers == [str(exercise.number) for exercise in exercises()]


def test_each_exercise_names_a_chapter() -> None:
    for exercise in exercises():
        assert find_package(exercise.chapter[0]) == exercise.chapter


def messages() -> list[str]:
    """The first column of the table of error messages."""
    section = PARTICIPANTS.read_text().partition("## If it does not work\n")[2]
    return re.findall(r"(?m)^\| `(.+)` \| ", section)


def run(*command: str, **settings: str) -> str:
    """What the command prints. It must fail."""
    environment = clean_environment() | settings
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    return done.stdout + done.stderr


PROVOKED = {
    "no embedded Valkey": (("common.services.redis_prompt",), {"DATA_DIR": "TMP"}),
    "there is no strategy 7": (("common.processes.run", "7"), {}),
    "WORKERS": (("common.processes.run", "1"), {"WORKERS": "2"}),
    "STEP": (("common.processes.run", "5"), {"STEP": "x"}),
    "N: there": (("workshop.run",), {"N": "99", "WORKSHOP_DIR": "TMP"}),
    "HINT": (("workshop.run",), {"HINT": "4", "WORKSHOP_DIR": "TMP"}),
    "solve exercise 7": (("workshop.run",), {"N": "7", "SOLUTION": "1", "WORKSHOP_DIR": "TMP"}),
}
"""How a message is provoked: the module and the settings."""
IN_MAKEFILE = ("You need Python 3.11 or newer", "On Debian and Ubuntu", ".venv is a symbolic link")
ELSEWHERE = ("PORT:", "INBOX_PORT:", "No matching distribution")


@pytest.mark.parametrize("message", messages())
def test_every_error_message_is_real(message: str, tmp_path: Path) -> None:
    if message.startswith(ELSEWHERE):
        return  # the tests below
    if message.startswith(IN_MAKEFILE):
        assert message.replace(".venv is", "$(VENV) is") in (ROOT / "Makefile").read_text()
        return
    [(module, settings)] = [how for begin, how in PROVOKED.items() if message.startswith(begin)]
    values = {name: value.replace("TMP", str(tmp_path)) for name, value in settings.items()}
    assert message in run(sys.executable, "-m", *module, **values)


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        free = {"DATA_DIR": str(tmp_path), "INBOX_SMTP_PORT": "0"}
        command = (sys.executable, "-m", "common.processes.run", "1")
        server = run(*command, **free, PORT=port, INBOX_PORT="0")
        inbox = run(*command, **free, PORT="0", INBOX_PORT=port)
    assert messages()[0].replace("8080", port) in server
    assert messages()[1].replace("8025", port) in inbox


def free_base() -> int:
    """A number with nine free ports behind it, below those that the kernel gives to clients."""
    while True:
        base = random.randrange(10_000, 30_000)
        with suppress(OSError):
            return min(free_port("127.0.0.1", base + place) for place in range(len(PORTS)))


@pytest.mark.timeout(240)
def test_port_base_moves_all_ports_of_two_runners(tmp_path: Path) -> None:
    """Two runners side by side, each with its own numbers, as two clones on one machine are."""
    programs = []
    with ExitStack() as stack:
        for name in ("one", "two"):
            base = free_base()
            settings = {"PORT_BASE": str(base), "DATA_DIR": str(tmp_path / name)}
            programs.append((base, Program(["make", "run-4"], settings)))
            stack.callback(programs[-1][1].stop)
        for base, program in programs:
            program.wait_for_line(rf"listens on http://127.0.0.1:{base}/$", START_SECONDS)
            program.wait_for_line(rf"see it arrive +http://127.0.0.1:{base + 1}/ ")
            program.wait_for_line(rf"look into it +redis://127.0.0.1:{base + 3}/0 ")


@pytest.mark.timeout(600)  # pip installs forty packages
def test_a_wheelhouse_is_all_that_an_installation_needs(tmp_path: Path) -> None:
    """`make wheelhouse`, and then `make run-1` and `make exercise` in a clone that reaches no package index."""
    clone, nowhere = tmp_path / "clone", "http://127.0.0.1:9/simple"
    hidden = shutil.ignore_patterns(".venv", ".git", ".data", ".*_cache", "node_modules", "my", "wheelhouse")
    shutil.copytree(ROOT, clone, ignore=hidden)
    (clone / ".venv").symlink_to(sys.prefix)
    environment = clean_environment()
    subprocess.run(["make", "wheelhouse"], cwd=clone, env=environment, check=True, capture_output=True)
    (clone / ".venv").unlink()
    offline = {"PIP_INDEX_URL": nowhere, "PIP_EXTRA_INDEX_URL": "", "PIP_CONFIG_FILE": os.devnull}
    offline |= {"PIP_NO_CACHE_DIR": "1"}
    ports = {"PORT": "0", "INBOX_PORT": "0", "INBOX_SMTP_PORT": "0", "DATA_DIR": str(tmp_path / "data")}
    program = Program(["make", "run-1", "WHEELHOUSE=wheelhouse"], offline | ports, clone)
    try:
        program.wait_for_line("listens on http://", INSTALL_SECONDS)
    finally:
        program.stop()
    done = subprocess.run(
        ["make", "exercise", "WHEELHOUSE=wheelhouse", "N=15", "CHECK=1"],
        cwd=clone,
        env=environment | offline,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "not solved" in done.stdout, done.stdout + done.stderr
    (clone / ".venv" / "ready").unlink()
    [wheel] = (clone / "wheelhouse").glob("uvloop-*")
    wheel.unlink()
    missing = subprocess.run(
        ["make", "run-1", "WHEELHOUSE=wheelhouse"],
        cwd=clone, env=environment | offline, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "No matching distribution found for" in missing.stderr
    assert missing.returncode != 0
