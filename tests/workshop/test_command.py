"""`make exercise` as a learner uses it, the pages that it shows beside an exercise, and the slides."""

import asyncio
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.programs import LIMIT, ROOT, ask, clean_environment
from workshop import slides
from workshop.bench import Bench
from workshop.course import exercises
from workshop.progress import Progress
from workshop.trial import Trial

FAST = next(exercise for exercise in exercises() if exercise.name == "15_stories")  # its check starts no program


def make_exercise(my: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workshop.run"],
        cwd=ROOT,
        env=clean_environment() | {"WORKSHOP_DIR": str(my)} | settings,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_next_exercise_is_shown_checked_and_solved(tmp_path: Path) -> None:
    """From the first look at an exercise to its solution, in the order of a learner."""
    n = str(FAST.number)
    before = make_exercise(tmp_path, N=n, SOLUTION="1")
    assert before.returncode == 2
    assert f"solve exercise {n} first, or skip it: make exercise N={n} SKIP=1" in before.stderr
    shown = make_exercise(tmp_path, N=n, CHECK="1")
    assert shown.returncode == 1
    assert FAST.title in shown.stdout
    assert "not solved" in shown.stdout
    hint = make_exercise(tmp_path, N=n, HINT="3")
    assert hint.stdout.strip() == FAST.hint(3)
    FAST.solve_in(tmp_path / FAST.name)
    solved = make_exercise(tmp_path, N=n, CHECK="1")
    assert solved.returncode == 0
    assert f"make exercise N={n} SOLUTION=1" in solved.stdout
    assert Progress.read(tmp_path).solved == [FAST.name]
    (tmp_path / FAST.name / "answers.toml").write_text("mine = 1\n")
    solution = make_exercise(tmp_path, N=n, SOLUTION="1")
    assert "-mine = 1" in solution.stdout
    assert "+[reset]" in solution.stdout
    reset = make_exercise(tmp_path, N=n, RESET="1")
    assert reset.returncode == 0
    assert (tmp_path / FAST.name / "answers.toml").read_text() == (FAST.start / "answers.toml").read_text()
    assert not Progress.read(tmp_path).solved


def test_skipping_leads_to_the_next_exercise(tmp_path: Path) -> None:
    assert "(number 2:" in make_exercise(tmp_path, SKIP="1").stdout
    assert "(number 3:" in make_exercise(tmp_path, SKIP="1").stdout
    assert Progress.read(tmp_path).skipped == [one.name for one in exercises()[:2]]


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"N": "99"}, f"N: there are the exercises 1 to {len(exercises())}"),
        ({"N": "x"}, f"N: there are the exercises 1 to {len(exercises())}"),
        ({"HINT": "4"}, "HINT: choose from 1 to 3"),
        ({"N": "1", "PREDICT": "many"}, "PREDICT: many is not a number"),
    ],
)
def test_a_wrong_word_is_one_line(settings: dict[str, str], line: str, tmp_path: Path) -> None:
    done = make_exercise(tmp_path, **settings)
    assert (done.returncode, done.stderr.strip()) == (2, line)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A terminal in which exercise 2 is shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "workshop.run"],
        cwd=ROOT,
        env=clean_environment() | {"WORKSHOP_DIR": str(tmp_path), "N": "2", "TERM": "dumb", "COLUMNS": "100"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    yield ours, process
    process.terminate()
    process.wait(LIMIT)
    os.close(ours)


def read_until(ours: int, pattern: str) -> str:
    text, deadline = "", time.monotonic() + 2 * LIMIT
    while not re.search(pattern, text):
        assert time.monotonic() < deadline, text
        if select.select([ours], [], [], 0.1)[0]:
            text += os.read(ours, 4096).decode(errors="replace")
    return text


def test_a_prediction_is_asked_kept_and_shown_beside_the_result_and_files_are_watched(
    terminal: tuple[int, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    ours, process = terminal
    second = exercises()[1]
    assert "Predict first" in read_until(ours, r"your number \(answers with 202\): ")
    os.write(ours, b"33\n")
    first = read_until(ours, "Save a file in")
    assert "you predicted 33, measured 60 answers with 202, with the starting point" in first
    assert Progress.read(tmp_path).predictions == {second.name: 33}
    second.solve_in(tmp_path / second.name)
    last = read_until(ours, "Next: make exercise")
    assert "you predicted 33, measured 20 answers with 202, with your changes" in last
    assert process.wait(LIMIT) == 0


@pytest.mark.parametrize("key", [b"\x03", b"\x04"], ids=["Ctrl-C", "Ctrl-D"])
def test_the_question_can_be_left(terminal: tuple[int, subprocess.Popen[bytes]], tmp_path: Path, key: bytes) -> None:
    ours, process = terminal
    read_until(ours, "your number")
    if key == b"\x03":
        process.send_signal(signal.SIGINT)  # it has no controlling terminal that would do so
    else:
        os.write(ours, key)
    assert process.wait(LIMIT) == 0
    assert "Traceback" not in os.read(ours, 1 << 16).decode()


def test_the_question_is_asked_again_until_the_answer_is_a_number(
    terminal: tuple[int, subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    ours, _ = terminal
    read_until(ours, "your number")
    os.write(ours, b"many\n")
    read_until(ours, r"Type a number(.|\n)*your number")
    os.write(ours, b"60 answers with 202\n")
    read_until(ours, "checking")
    assert Progress.read(tmp_path).predictions == {exercises()[1].name: 60}


async def test_redis_is_filled_with_what_the_answers_say(tmp_path: Path) -> None:
    """The commands of the text, and the answers that its solution gives."""
    [explore] = [one for one in exercises() if one.name == "06_explore"]
    async with explore.module.stage(tmp_path) as text:
        [folder] = re.findall(r"DATA_DIR=(\S+)", text)
        typed = re.findall(r"`([A-Z]+ [^`…]+)`", explore.text)
        words = {"KEYS", "TYPE", "SMEMBERS", "LLEN", "LRANGE", "GET", "ZRANGE"}
        lines = [line for line in typed if line.split()[0] in words]
        done = subprocess.run(  # noqa: ASYNC221  nothing else runs meanwhile
            [sys.executable, "-m", "common.services.redis_prompt"],
            cwd=ROOT,
            env=clean_environment() | {"DATA_DIR": str((ROOT / folder).resolve())},
            input="\n".join(lines) + "\n",
            capture_output=True,
            text=True,
            check=True,
        )
    assert len(lines) >= len(words)
    assert "(error)" not in done.stdout
    assert "resque:delayed_queue_schedule" in done.stdout
    assert "carol@example.com" not in done.stdout, "her job is not in the queue that the text uses as an example"
    assert "(empty" not in done.stdout
    assert "(nil)" not in done.stdout


async def test_what_redis_holds_leads_to_the_right_answers(bench: Bench, tmp_path: Path) -> None:
    """Each queue has all of its jobs, in the order from which the right answers were computed."""
    [explore] = [one for one in exercises() if one.name == "06_explore"]
    data = explore.module.Data()
    async with Trial(tmp_path, bench) as trial:
        redis: Any = await trial.redis()
        await data.fill(redis)
        for name, people in data.queues.items():
            jobs = [json.loads(raw) for raw in await redis.lrange(f"resque:queue:{name}", 0, -1)]
            assert [job["args"][0]["to"] for job in jobs] == people
        [due, *_] = await redis.zrange("resque:delayed_queue_schedule", 0, -1)
        [first] = await redis.lrange(f"resque:delayed:{due.decode()}", 0, -1)
    assert json.loads(first)["args"][0]["to"] == data.facts().first_delayed


async def test_the_poison_job_is_on_the_page(tmp_path: Path) -> None:
    [poison] = [one for one in exercises() if one.name == "10_poison"]
    async with poison.module.stage(tmp_path) as text:
        [url] = re.findall(r"(http://\S+)/resque", text)
        page = await _get(url, "/resque/failed")
    solution = (poison.solution / "answers.toml").read_text()
    assert re.findall(r'poison = "(.*)"', solution)[0] in page
    assert "its worker died while it ran, 5 times" in page


async def _get(url: str, path: str) -> str:
    answer = await asyncio.to_thread(ask, url, path)
    assert answer.status == 200
    return answer.text


def test_the_slides_need_no_network_and_have_the_measured_figures() -> None:
    text = slides.PLAN.read_text()
    deck = slides.deck(text)
    assert deck.count("<section") == text.count("<!-- slide: ") == len(slides.slides(text)) >= 8
    assert not re.findall(r'(?:src|href)="?http|url\(|@import', deck.replace('href="https://www.rfc', ""))
    lost = {
        cell["subject"]: cell["lost"] for cell in slides.results("faults")["cells"] if cell["fault"] == "worker-kill"
    }
    assert f"<td>{lost['4']} of" in deck
    assert "@media print" in deck
    assert "&lt;!--" not in deck


def test_each_folder_of_an_exercise_is_in_the_order_and_in_a_test() -> None:
    folders = sorted(path.parent.name for path in (ROOT / "workshop" / "exercises").glob("*/check.py"))
    assert [one.name for one in exercises()] == folders
    lists = [
        re.findall(r'"(\d\d_\w+)"', path.read_text()) for path in Path(__file__).parent.glob("test_exercises_*.py")
    ]
    assert sorted(name for names in lists for name in names) == folders


def test_a_check_does_not_read_source_text() -> None:
    for one in exercises():
        text = (one.folder / "check.py").read_text()
        assert "read_text" not in text.replace("FAULTS.read_text()", "").replace("path.read_text()", ""), one.name
        assert "import inspect" not in text
        assert "import ast" not in text
