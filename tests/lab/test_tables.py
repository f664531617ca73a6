"""The tables in the READMEs agree with the saved results."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.bench import engines as bench_engines
from lab.compare.rounds import all_delivered_once
from lab.faults.promises import STEPS, SUBJECTS, faults_of, promise
from lab.faults.topology_promises import REPLICATED, topology_faults_of, topology_promise
from lab.harness.command import RESULTS
from lab.tables import engines as engines_module
from lab.tables import overview, saved
from lab.tables.engines import engines
from lab.tables.overview import lost_and_twice
from lab.tables.render import BLOCKS, NoSuchBlock, readmes, render
from lab.tables.replicas import NOT_MEASURED, table, topology
from lab.tables.saved import NotMeasured, bench_row, measured_cell, results


@pytest.mark.parametrize("path", readmes(), ids=lambda path: path.parent.name)
def test_the_measured_blocks_agree_with_the_results(path: Path) -> None:
    text = path.read_text()
    assert render(text) == text, "make tables"


def test_every_block_is_in_a_readme() -> None:
    texts = "".join(path.read_text() for path in readmes())
    assert [name for name in BLOCKS if f"<!-- measured: {name} -->\n" not in texts] == []
    assert texts.count("<!-- measured: ") == texts.count("<!-- end -->") == len(BLOCKS)


def test_an_edited_block_is_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    def block() -> Iterator[str]:
        yield "| 7 |"

    monkeypatch.setitem(BLOCKS, "seven", block)
    text = "a\n<!-- measured: seven -->\n| 8 |\n<!-- end -->\nb\n"
    assert render(text) == text.replace("8", "7")
    assert render(render(text)) == render(text)


def test_parts_that_are_not_among_the_results_are_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "results", lambda name: {"rows": []})
    assert list(overview.parts()) == ["(Not measured yet: `make bench`.)"]


def test_parts_are_shown_with_their_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {
        "parts": [{"name": "a request", "parts": {"first": 1.04, "second": 2.0}}],
        "machine": results("bench")["machine"],
    }
    monkeypatch.setattr(overview, "results", lambda name: facts)
    head, _, line, *_ = overview.parts()
    assert head == "| a request | first | second | in all |"
    assert line == "| CPU µs | 1.0 | 2.0 | 3.0 |"


def test_an_unknown_block_is_an_error() -> None:
    with pytest.raises(NoSuchBlock, match="eight"):
        render("<!-- measured: eight -->\n<!-- end -->\n")


NOT_YET_SAVED: set[str] = set()
"""Faults and subjects that are newer than results/faults.json. Empty this with the next full run of `make faults`."""


def test_the_saved_faults_are_complete_with_today_s_promises_and_all_kept() -> None:
    cells = results("faults")["cells"]
    expected = [(subject, fault) for subject in SUBJECTS for fault in faults_of(SUBJECTS[subject])]
    found = [(cell["subject"], cell["fault"]) for cell in cells]
    assert found == [each for each in expected if each in found], "in the order of the promises"
    missing = {(subject, fault) for subject, fault in set(expected) - set(found) if subject not in NOT_YET_SAVED}
    assert {fault for _, fault in missing} <= NOT_YET_SAVED
    assert [(cell["subject"], cell["fault"], cell["promised"]) for cell in cells] == [
        (*each, promise(*each).text()) for each in found
    ]
    assert [(cell["subject"], cell["fault"], cell["broken"]) for cell in cells if cell["broken"]] == []
    assert all(cell["closes"] for cell in cells)


def test_the_saved_faults_of_a_redis_with_replicas_are_complete_and_all_kept() -> None:
    if not (RESULTS / "faults_topology.json").exists():
        assert list(topology()) == [NOT_MEASURED]
        return
    cells = results("faults_topology")["cells"]
    expected = [(name, fault) for name, subject in REPLICATED.items() for fault in topology_faults_of(subject)]
    assert [(cell["subject"], cell["fault"], cell["promised"]) for cell in cells] == [
        (*each, topology_promise(*each).text()) for each in expected
    ]
    assert [(cell["subject"], cell["fault"], cell["broken"]) for cell in cells if cell["broken"]] == []


def test_the_table_of_topologies_has_a_row_for_each_fault_and_a_column_for_each_subject() -> None:
    cells = {("5_sentinel", "primary-cut"): {"lost": 2, "duplicated": 3, "broken": []}}
    head, _, *rows = table("sentinel", cells)
    assert head.count("|") == 2 + sum(subject.topology == "sentinel" for subject in REPLICATED.values())
    [row] = [row for row in rows if row.startswith("| the links of a primary")]
    assert row.endswith("|  | **2** / 3 |  |  |  |")


STEPS_NOT_YET_SAVED: set[str] = set()
"""Steps that are newer than results/steps.json. Empty this with the next full run of `make faults STEPS=1`."""


def test_the_saved_steps_are_complete_and_only_three_of_them_lose_emails() -> None:
    cells = results("steps")["cells"]
    saved_steps = [step for step in STEPS if step not in STEPS_NOT_YET_SAVED]
    expected = [(step, fault) for step in saved_steps for fault in faults_of(STEPS[step])]
    assert [(cell["subject"], cell["fault"], cell["promised"]) for cell in cells] == [
        (*each, promise(*each).text()) for each in expected
    ]
    assert [cell["subject"] for cell in cells if cell["broken"]] == []
    losing = {"3-pass_on", "5-pop", "6-cursor_first"} - STEPS_NOT_YET_SAVED
    assert {cell["subject"] for cell in cells if cell["lost"]} == losing


def test_the_saved_comparison_has_all_six_with_each_email_delivered_once() -> None:
    lines = results("compare")["strategies"]
    assert [line["strategy"] for line in lines] == [path.parent.name for path in readmes()[1:7]]
    assert all(all_delivered_once(line) for line in lines)


def test_the_saved_comparison_of_the_steps_has_all_of_them_with_each_email_delivered_once() -> None:
    lines = results("compare_steps")["strategies"]
    assert [line["strategy"] for line in lines] == list(STEPS)
    assert all(all_delivered_once(line) for line in lines)


BENCH_NOT_YET_SAVED: set[str] = set()
"""Engines that are newer than results/bench.json. Empty this with the next full run of `make bench`."""


def test_the_saved_figures_have_all_benchmarks() -> None:
    names = {row["name"].partition(",")[0] for row in results("bench")["rows"]}
    assert {SUBJECTS[name].title for name in bench_engines.ENGINES} - BENCH_NOT_YET_SAVED <= names
    assert {"mailer", "1_foreground", "2_parallel", "queue", "the log appends"} <= names
    for number in (3, 4, 5, 6):
        assert {f"strategy {number} {what}" for what in ("accepts", "delivers", "from idle")} <= names


def test_the_engines_are_compared_with_the_results_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def facts(name: str) -> dict[str, Any]:
        counts = {"injections": 50, "acknowledged": 2000, "lost": 0, "duplicated": 7, "broken": []}
        row = {"name": "5 on RabbitMQ, delivers", "measured": {"median": 900.0}, "reference": {"median": 4000.0}}
        line = {"strategy": "5r", "answer_p50_ms": 2.5, "inbox_p50_ms": 4.0}
        cells = [{"subject": "5r", "fault": fault, **counts} for fault in ("none", "worker-kill", "broker-kill")]
        return results(name) | {"cells": cells, "rows": [row], "strategies": [line]}

    empty = list(engines(6))
    for module in (saved, engines_module):
        monkeypatch.setattr(module, "results", facts)
    monkeypatch.setattr(engines_module, "is_saved", lambda name: True)
    monkeypatch.setattr(engines_module, "results", lambda name: facts("bench"))
    table = list(engines(5))
    assert "| `make faults`: faults, emails accepted |  | 100, 6,000 |" in table
    assert "| lost / twice / broken promises |  | 0 / 21 / 0 |" in table
    assert "| HTTP answer / in the inbox, at a steady rate (medians, ms) |  | 2.5 / 4.0 |" in table
    assert "| emails delivered to a fast mail server, per second | 4,000 | 900 |" in table
    assert "| emails accepted per second |  |  |" in table
    assert len(empty) == len(table), "without results too"


def test_each_engine_has_code_and_a_line_if_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(len(bench_engines.sources(name)) > 1 for name in bench_engines.SOURCES)
    assert len(bench_engines.benchmarks()) + len(bench_engines.skipped()) == len(bench_engines.ENGINES)
    monkeypatch.setattr(bench_engines, "missing", lambda settings: "no engine" if "QUEUE" in settings else None)
    assert bench_engines.skipped() == ["5 on RabbitMQ is skipped: no engine"]
    assert list(bench_engines.benchmarks()) == ["6 on Streams", "6 on JetStream"]


def test_a_missing_result_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    partial = {"cells": [{"subject": "2", "fault": "server-kill", "broken": ["not measured: oh dear"]}], "rows": []}
    monkeypatch.setattr(saved, "results", lambda name: partial)
    with pytest.raises(NotMeasured, match="server-kill of 2: make faults"):
        measured_cell("2", "server-kill")
    with pytest.raises(NotMeasured, match="the log in memory: make bench"):
        bench_row("the log in memory")


def test_a_cell_that_broke_its_promise_is_marked() -> None:
    assert lost_and_twice({"lost": 3, "duplicated": 1, "broken": ["3 lost"]}) == "**3** / 1 BROKEN"
    assert lost_and_twice({"lost": 0, "duplicated": 1, "broken": []}) == "0 / 1"
    assert lost_and_twice({"broken": ["not measured"]}) == "not measured"
    assert lost_and_twice(None) == ""
