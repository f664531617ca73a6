"""`make compare` measures the right times and rates, and saves them as JSON, Markdown and SVG."""

import io
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lab.compare import compare_command
from lab.compare.compare_command import live_table, report
from lab.compare.compare_report import picture, row
from lab.compare.plan import Plan
from lab.compare.remarks import remarks
from lab.compare.rounds import Line, all_delivered_once, rate_of, times
from lab.harness import command
from lab.harness.account import Account, Outcome
from lab.harness.machine import describe_machine
from tests.support.programs import ROOT


def outcome(due: float, answered: float, arrived: float | None) -> Outcome:
    """An accepted email. Times are in ms; `arrived` is None if it was lost."""
    arrivals = () if arrived is None else (round(arrived * 1e6),)
    return Outcome(round(due * 1e6), round(due * 1e6), round(answered * 1e6), 202, "<1>", arrivals)


def test_times_are_measured_from_when_an_email_was_due() -> None:
    found = times(Account(outcomes=[outcome(0, 2, 5), outcome(10, 13, 17), outcome(20, 24, None)]))
    assert (found["answer_p50_ms"], found["answer_p99_ms"]) == (3.0, 4.0)
    assert (found["inbox_p50_ms"], found["inbox_p99_ms"]) == (5.0, 7.0)


def test_the_rate_is_measured_until_the_last_250() -> None:
    assert rate_of(Account(outcomes=[outcome(0, 1, 100), outcome(50, 51, 400)]), latency=0.1) == pytest.approx(4.0)
    assert rate_of(Account(outcomes=[outcome(0, 1, None)]), latency=0.1) == 0.0


PLAN = Plan(emails=200, clients=10, latency_ms=100)


def facts_of(**facts: object) -> dict[str, Any]:
    """The facts of a strategy that answers after 2 ms, at most 4, and has no problems except those in `facts`."""
    times = {
        "burst_answer_p50_ms": 5.0,
        "answer_p50_ms": 2.0,
        "answer_p95_ms": 3.0,
        "answer_p99_ms": 4.0,
        "inbox_p50_ms": 3.0,
        "inbox_p99_ms": 5.0,
    }
    generator = {"late_p50_ms": 0.01, "late_p99_ms": 0.5, "cpu": 0.3}
    counts = {"attempted": 5, "acknowledged": 5, "ok": 5, "lost": 0, "duplicated": 0, "unexpected": 0}
    rest = {"strategy": "1_foreground", "emails_per_second": 97.0, "processes": 2, "memory": {"server": 2**20}}
    return {**times, "generator": generator, **counts, **rest, **facts}


def remarks_on(plan: Plan = PLAN, **facts: object) -> list[str]:
    """The remarks, without the first (on the load generator) and the last (on memory)."""
    _, *found, _ = remarks(plan, [Line(1, "1_foreground", facts=facts_of(**facts))])
    return found


def test_a_strategy_without_problems_gets_no_remarks() -> None:
    assert remarks_on() == []


@pytest.mark.parametrize(
    ("late", "expected"),
    [
        (
            {"late_p50_ms": 0.3},
            "1_foreground: 0.3 of the 2.0 ms at p50 are a delay of the load generator or of a busy machine",
        ),
        (
            {"late_p99_ms": 2.1},
            "1_foreground: 2.1 of the 4.0 ms at p99 are a delay of the load generator or of a busy machine",
        ),
    ],
)
def test_a_load_generator_that_is_too_late_for_what_it_measures_gets_a_remark(
    late: dict[str, float], expected: str
) -> None:
    generator = facts_of()["generator"] | late
    assert remarks_on(generator=generator) == [expected]
    # and the same delay is negligible if answers take fifty times as long
    slow = {"answer_p50_ms": 100.0, "answer_p95_ms": 150.0, "answer_p99_ms": 200.0}
    assert remarks_on(Plan(200, 10, latency_ms=0), generator=generator, **slow) == []


@pytest.mark.parametrize(("cpu", "warned"), [(0.8, False), (0.81, True)])
def test_a_load_generator_that_needs_a_whole_core_gets_a_remark(cpu: float, warned: bool) -> None:
    generator = facts_of()["generator"] | {"cpu": cpu}
    first = next(remarks(PLAN, [Line(1, "1_foreground", facts=facts_of(generator=generator))]))
    assert ("it may have been the limit" in first) == warned


def test_rejected_and_unexpected_emails_get_a_remark() -> None:
    assert remarks_on(acknowledged=3, unexpected=1) == [
        "1_foreground: 2 of 5 requests were not accepted",
        "1_foreground: 1 emails arrived without a request",
    ]


def test_if_the_clients_are_the_limit_there_is_a_remark() -> None:
    assert remarks_on(burst_answer_p50_ms=103.0) == [
        "1_foreground: 10 clients that wait 103 ms for each answer send 97 requests per second, which is the limit here"
    ]
    assert remarks_on(Plan(emails=200, clients=20, latency_ms=100), burst_answer_p50_ms=103.0) == []


def test_a_rate_above_that_of_the_mail_server_gets_a_remark() -> None:
    assert remarks_on(Plan(emails=200, clients=10, latency_ms=500)) == [
        "50 emails per second are more than the 40 that the mail server accepts in 20 sessions, so emails wait"
    ]


def saved(lines: list[Line], failure: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The files that a run with all strategies writes, by their paths."""
    monkeypatch.setattr(command, "RESULTS", folder)
    monkeypatch.setattr(command, "PARTIAL", folder / "partial")
    report(
        Console(file=io.StringIO()),
        PLAN,
        lines,
        describe_machine() | {"warning": "this machine was busy"},
        failure,
        whole=True,
    )
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*.*")}


def test_a_run_that_fails_saves_its_results_as_a_partial_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [Line(1, "1_foreground", "done", 1.0, facts_of()), Line(2, "2_parallel", "starts")]
    texts = saved(lines, "make run-2: no output", tmp_path, monkeypatch)
    assert texts.keys() == {"partial/compare.json", "partial/compare.md", "partial/compare.svg"}
    facts = json.loads(texts["partial/compare.json"])
    assert [line["strategy"] for line in facts["strategies"]] == ["1_foreground"]
    assert "- not everything was measured: make run-2: no output\n" in texts["partial/compare.md"]


def test_a_run_that_fails_before_its_first_result_saves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert saved([Line(1, "1_foreground", "starts")], "no port", tmp_path, monkeypatch) == {}


def test_a_whole_run_is_saved_with_the_warning_that_the_machine_was_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = saved([Line(1, "1_foreground", "done", 1.0, facts_of())], "", tmp_path, monkeypatch)
    assert texts.keys() == {"compare.json", "compare.md", "compare.svg"}
    assert json.loads(texts["compare.json"])["machine"]["warning"] == "this machine was busy"
    assert texts["compare.md"].endswith("; this machine was busy\n")


def test_the_picture_has_both_numbers_at_the_end_of_each_line() -> None:
    settings = {"N": 1, "CLIENTS": 1, "LATENCY_MS": 0}
    drawn = picture({"settings": settings, "strategies": [facts_of(answer_p50_ms=1.8, answer_p99_ms=44.0)]})
    assert "<!-- 1.8 … 44 -->" in drawn  # a comment before the outlines of the letters
    assert "<!-- the numbers: median" in drawn


def test_lost_and_duplicated_emails_are_bold() -> None:
    assert " | 0 | 0 | " in row(facts_of())
    assert " | **2** | **1** | " in row(facts_of(lost=2, duplicated=1))
    shown = io.StringIO()
    line = Line(1, "1_foreground", "done", 1.0, facts_of(duplicated=7))
    Console(file=shown, force_terminal=True, width=120).print(live_table([line], 100))
    assert "\x1b[1;31m7\x1b[0m" in shown.getvalue()


def test_a_strategy_that_accepts_nothing_has_no_times_but_a_picture() -> None:
    nothing = times(Account()) | {"strategy": "1_foreground"}
    assert nothing["answer_p50_ms"] is nothing["inbox_p99_ms"] is None
    settings = {"N": 1, "CLIENTS": 1, "LATENCY_MS": 0}
    assert "</svg>" in picture({"settings": settings, "strategies": [nothing]})


@pytest.mark.parametrize(
    "wrong", [{"acknowledged": 4, "ok": 4}, {"ok": 4, "lost": 1}, {"duplicated": 1}, {"unexpected": 1}]
)
def test_each_email_must_be_accepted_and_delivered_once(wrong: dict[str, int]) -> None:
    assert all_delivered_once(facts_of())
    assert not all_delivered_once(facts_of(**wrong))


def test_the_rate_is_five_emails_per_second_and_client() -> None:
    assert Plan(emails=200, clients=10, latency_ms=100).rate == 50.0


def run_compare(folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"RESULTS_DIR": str(folder), "TMPDIR": str(folder)} | settings
    command = [sys.executable, "-m", "lab.compare"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)


def test_the_steps_are_a_part_of_their_own(tmp_path: Path) -> None:
    done = run_compare(tmp_path, STEPS="1", STRATEGIES="3-pass_on 5-pop", N="10", CLIENTS="2", LATENCY_MS="10")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["partial"], "no file of a whole run"
    facts: dict[str, Any] = json.loads((tmp_path / "partial" / "compare_steps.json").read_text())
    assert [line["strategy"] for line in facts["strategies"]] == ["3-pass_on", "5-pop"]
    assert [(line["acknowledged"], line["ok"]) for line in facts["strategies"]] == [(22, 22), (22, 22)]
    table = (tmp_path / "partial" / "compare_steps.md").read_text()
    assert table.startswith("# The steps side by side\n")
    assert "| 3 pass on | " in table
    assert "| 5 pop | " in table


def test_the_command_measures_the_engines_that_there_are(tmp_path: Path) -> None:
    done = run_compare(tmp_path, ENGINES="1", STRATEGIES="6s 6j", N="10", CLIENTS="2", LATENCY_MS="10")
    assert done.returncode == 0, done.stdout + done.stderr
    facts: dict[str, Any] = json.loads((tmp_path / "partial" / "compare_engines.json").read_text())
    assert [(line["strategy"], line["ok"]) for line in facts["strategies"]] == [("6s", 22), ("6j", 22)]
    assert {"server", "worker", "nats"} <= facts["strategies"][1]["memory"].keys()
    table = (tmp_path / "partial" / "compare_engines.md").read_text()
    assert table.startswith("# The engines side by side\n")
    assert "| 6 on JetStream | " in table


def test_an_engine_that_is_not_installed_is_skipped_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured: list[str] = []

    def only_note(lab: Any, plan: Plan, lines: list[Line], refresh: Any) -> None:
        measured.extend(line.name for line in lines)

    monkeypatch.setenv("ENGINES", "1")
    monkeypatch.setattr(sys, "argv", ["compare"])
    monkeypatch.setattr(compare_command, "refuse_env_overrides", lambda parser: None)
    monkeypatch.setattr(compare_command, "compare", only_note)
    monkeypatch.setattr(compare_command, "missing", lambda settings: "no broker" if "QUEUE" in settings else None)
    with pytest.raises(KeyError):  # nothing was measured
        compare_command.main()
    assert "5r is skipped: no broker\n" in capsys.readouterr().out
    assert measured == ["5", "6", "6s", "6j"]


def test_a_bad_step_is_named_with_all_there_are(tmp_path: Path) -> None:
    done = run_compare(tmp_path, STEPS="1", STRATEGIES="5-push")
    assert done.returncode == 2
    assert "STRATEGIES: unknown: 5-push; choose from 3-pass_on, 5-pop, 5-move, 5-lease, 6-cursor_first" in done.stderr


def test_the_command_saves_figures_a_table_and_a_picture(tmp_path: Path) -> None:
    done = run_compare(tmp_path, STRATEGIES="1 4", N="20", CLIENTS="4", LATENCY_MS="300")
    assert done.returncode == 0, done.stdout + done.stderr
    facts: dict[str, Any] = json.loads((tmp_path / "partial" / "compare.json").read_text())
    first, fourth = facts["strategies"]
    # then strategy 1 waits for the mail server, strategy 4 does not, and the emails of both arrive
    assert first["answer_p50_ms"] >= 300
    assert 0 < fourth["answer_p50_ms"] < first["answer_p50_ms"]
    assert min(first["inbox_p50_ms"], fourth["inbox_p50_ms"]) > 0
    for line in (first, fourth):
        # one email from each client first, then two rounds of twenty
        assert (line["attempted"], line["acknowledged"], line["ok"], line["lost"]) == (44, 44, 44, 0)
    assert {"server", "worker", "valkey"} <= fourth["memory"].keys()
    assert fourth["processes"] >= 4 > first["processes"]
    assert "| 1 foreground | " in (tmp_path / "partial" / "compare.md").read_text()
    picture = ET.parse(tmp_path / "partial" / "compare.svg").getroot()
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
