"""`make compare` measures what it says, and saves it in three forms."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from lab.account import Account, Story
from lab.compare import Line, Plan, rate_of, remarks, times, went_well
from lab.compare_report import picture
from tests.programs import ROOT


def story(due: float, answered: float, arrived: float | None) -> Story:
    """In ms."""
    arrivals = () if arrived is None else (round(arrived * 1e6),)
    return Story(round(due * 1e6), round(due * 1e6), round(answered * 1e6), 202, "<1>", arrivals)


def test_times_count_from_when_an_email_was_due() -> None:
    found = times(Account(stories=[story(0, 2, 5), story(10, 13, 17), story(20, 24, None)]))
    assert (found["answer_p50_ms"], found["answer_p99_ms"]) == (3.0, 4.0)
    assert (found["inbox_p50_ms"], found["inbox_p99_ms"]) == (5.0, 7.0)


def test_emails_a_second_count_to_the_last_250() -> None:
    assert rate_of(Account(stories=[story(0, 1, 100), story(50, 51, 400)]), latency=0.1) == pytest.approx(4.0)
    assert rate_of(Account(stories=[story(0, 1, None)]), latency=0.1) == 0.0


def test_a_load_generator_that_is_late_is_named() -> None:
    facts = {"generator": {"late_p99_ms": 9.0, "cpu": 0.3}, "attempted": 5, "acknowledged": 3, "unexpected": 1}
    said = list(remarks([Line(1, "1_foreground", facts=facts)]))
    assert "IT WAS TOO SLOW" in said[0]
    assert said[1:] == ["1_foreground: 2 of 5 NOT ACCEPTED", "1_foreground: 1 SENT THAT NOBODY HAS ASKED FOR"]


def test_a_strategy_that_accepts_nothing_has_no_times_and_still_a_picture() -> None:
    nothing = times(Account()) | {"strategy": "1_foreground"}
    assert nothing["answer_p50_ms"] is nothing["inbox_p99_ms"] is None
    settings = {"N": 1, "CLIENTS": 1, "LATENCY_MS": 0}
    assert "</svg>" in picture({"settings": settings, "strategies": [nothing]})
    assert not went_well({"attempted": 5, "acknowledged": 0, "ok": 0, "unexpected": 0})
    assert went_well({"attempted": 5, "acknowledged": 5, "ok": 5, "unexpected": 0})


def test_the_plan_is_so_many_emails_a_second_for_each_client() -> None:
    assert Plan(emails=200, clients=10, latency_ms=100).rate == 50.0


def test_the_command_saves_figures_a_table_and_a_picture(tmp_path: Path) -> None:
    own = {"RESULTS_DIR": str(tmp_path), "TMPDIR": str(tmp_path), "STRATEGIES": "1 4"}
    own |= {"N": "20", "CLIENTS": "4", "LATENCY_MS": "50"}
    done = subprocess.run(
        [sys.executable, "-m", "lab.compare"],
        cwd=ROOT,
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    facts: dict[str, Any] = json.loads((tmp_path / "partial" / "compare.json").read_text())
    first, fourth = facts["strategies"]
    # then the one waits for the mail server and the other does not, and both emails come
    assert first["answer_p50_ms"] >= 50 > first["inbox_p50_ms"] > 0
    assert 50 > fourth["answer_p50_ms"] > 0 < fourth["inbox_p50_ms"] < 50
    for line in (first, fourth):
        assert (line["attempted"], line["acknowledged"], line["ok"], line["lost"]) == (40, 40, 40, 0)
    assert {"server", "worker", "valkey"} <= fourth["memory"].keys()
    assert fourth["processes"] >= 4 > first["processes"]
    assert "| 1 foreground | " in (tmp_path / "partial" / "compare.md").read_text()
    picture = ET.parse(tmp_path / "partial" / "compare.svg").getroot()
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
