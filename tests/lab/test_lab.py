"""The figures of the lab, its children, and the strategies that it starts."""

import io
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from lab.bench.accepting import cpu_by_role, load_by_role
from lab.bench.delivering import second_half
from lab.bench.idle import compare_moments
from lab.bench.parts import Breakdown, breakdown
from lab.bench.suite import BENCHMARKS, Benchmark, chosen, measure, report
from lab.harness import command, processes
from lab.harness.account import IdAccount, compare_ids
from lab.harness.exactly_once import exactly_once
from lab.harness.figures import Rounds, Row, Spread, in_turns, percentile
from lab.harness.machine import alive, describe_machine
from lab.harness.processes import ChildFailed, Lab, default_environment, python
from lab.harness.sinks import WITH_LIFELINE, LabSink, lab_sink, url_of, wait_for_mail
from lab.harness.strategies import strategies, strategy
from lab.harness.valkey import valkey
from lab.load.redis import KINDS
from tests.support.programs import LIMIT, wait_until

# Figures


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([15, 20, 35, 40, 50], 30, 20),  # the usual example of the nearest-rank method
        ([15, 20, 35, 40, 50], 100, 50),
        ([15, 20, 35, 40, 50], 0, 15),
        ([50, 15, 40, 20, 35], 50, 35),  # in any order
        ([7], 99, 7),
        (range(1, 101), 99, 99),
        (range(1, 1001), 99, 990),
    ],
)
def test_a_percentile_is_the_value_of_the_nearest_rank(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == expected


def test_a_percentile_of_nothing_is_not_a_number() -> None:
    assert math.isnan(percentile([], 50))


def test_ratios_are_computed_round_by_round() -> None:
    # given another program that halves the rates of the second round
    rounds = Rounds([{"rate": 10}, {"rate": 5}, {"rate": 12}], [{"rate": 20}, {"rate": 10}, {"rate": 20}])
    # then the rates vary, and their ratio hardly does
    assert rounds.measured == Spread(10, 5, 12)
    assert rounds.ratio == Spread(0.5, 0.5, 0.6)


def test_a_measurement_and_its_reference_alternate() -> None:
    calls: list[str] = []

    def measure(name: str) -> dict[str, int]:
        calls.append(name)
        return {"rate": len(calls)}

    in_turns(lambda _: None, lambda: measure("ours"), lambda: measure("bare"), rounds=2)
    assert calls == ["ours", "bare", "ours", "bare"]


def test_the_ids_of_a_burst_are_compared_both_ways() -> None:
    account = compare_ids(accepted=["a", "b", "c"], delivered=["a", "b", "b", "x"])
    assert account == IdAccount(accepted=3, delivered=4, lost=1, duplicated=1, unexpected=1)


@pytest.mark.parametrize("wrong", ["lost", "duplicated", "unexpected", "broken"])
def test_exactly_once_means_none_lost_duplicated_or_unexpected_and_no_broken_connection(wrong: str) -> None:
    account = IdAccount(accepted=2, delivered=2, lost=0, duplicated=0, unexpected=0)
    assert exactly_once(account, {"broken": 0}, {"broken": 0})
    broken = int(wrong == "broken")
    bad = account if broken else replace(account, **{wrong: 1})
    assert not exactly_once(bad, {"broken": 0}, {"broken": broken})


def row(name: str, *rates: float) -> Row:
    rounds = Rounds([{"rate": rate} for rate in rates], [{"rate": rate} for rate in rates])
    return Row(name, "emails/s", rounds, against="bare SMTP", target="none", met=True, notes=())


def test_a_row_with_one_round_says_so() -> None:
    assert row("burst", 7.0).to_dict()["against"] == "bare SMTP, one round"
    assert row("mailer", 7.0, 8.0).to_dict()["against"] == "bare SMTP"


def test_the_time_of_a_part_is_the_difference_that_it_makes(tmp_path: Path) -> None:
    figures = {"bare": 10.0, "with one": 13.0, "whole": 20.0}
    programs = [partial(figures.__getitem__, name) for name in figures]
    found = breakdown(Lab(tmp_path), "a request", ("bare", "one"), programs)
    assert found == Breakdown("a request", {"bare": 10.0, "one": 3.0, "the rest": 7.0})
    assert found.total == 20.0


def test_if_a_benchmark_fails_the_rows_before_it_are_saved_as_a_partial_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    monkeypatch.setattr(command, "PARTIAL", tmp_path / "partial")
    console = Console(file=io.StringIO())

    def works(lab: Lab) -> Iterator[Row | Breakdown]:
        yield row("one", 7.0)

    def fails(lab: Lab) -> Iterator[Row | Breakdown]:
        yield row("two", 8.0)
        yield Breakdown("three", {"first": 1.0, "second": 2.0})
        raise ChildFailed("sink: no output")

    rows: list[Row | Breakdown] = []
    benchmarks: dict[str, Benchmark] = {"works": works, "fails": fails, "not reached": works}
    with pytest.raises(ChildFailed):
        measure(benchmarks, rows, console)
    report(console, rows, describe_machine(), "sink: no output", whole=True)
    [path] = tmp_path.rglob("*.json")
    facts = json.loads(path.read_text())
    assert path == tmp_path / "partial" / "bench.json"
    assert ([found["name"] for found in facts["rows"]], facts["failure"]) == (["one", "two"], "sink: no output")
    assert facts["parts"] == [{"name": "three", "parts": {"first": 1.0, "second": 2.0}}]
    # and a complete run is saved as the result
    report(console, rows, describe_machine(), "", whole=True)
    assert (tmp_path / "bench.json").exists()


def test_only_the_named_groups_are_measured() -> None:
    assert chosen(["burst"]) == BENCHMARKS["burst"]
    assert len(chosen([])) == sum(len(group) for group in BENCHMARKS.values())


# The strategies, and their figures


def test_a_strategy_is_ready_with_known_roles_and_leaves_no_process(lab: Lab) -> None:
    with lab_sink(lab) as sink, strategy(lab, 3, url_of(sink)) as server:
        roles = server.roles()
        processes = [psutil.Process(pid) for pid in server.pids()]
        facts = load_by_role(lab, server.port, roles, count=50)
        wait_for_mail(sink, 50)
        assert sorted(roles.values()) == ["email worker", "master", "web server"]
        assert (facts["statuses"], sink.count()) == ({"202": 50}, 50)
        assert facts["cpu_us"].keys() == set(roles.values())
    assert not any(map(alive, processes))


def test_missing_strategies_are_not_measured() -> None:
    assert strategies(1, 3, 99) == [1, 3]


def test_the_time_to_the_sink_is_that_of_the_first_copy() -> None:
    asked = {"a": 1_000_000, "b": 5_000_000, "c": 9_000_000, "lost": 12_000_000}
    arrivals = [("a", 3_000_000), ("x", 4_000_000), ("c", 10_000_000), ("b", 11_000_000), ("a", 99_000_000)]
    facts = compare_moments(asked, arrivals)
    assert facts == {"p50_ms": 2.0, "p99_ms": 6.0, "worst_ms": 6.0, "lost": 1, "busy": 1}


def test_a_slow_start_does_not_count_for_the_rate_of_a_worker() -> None:
    slow, fast = [0, 10**9, 2 * 10**9, 3 * 10**9], [3 * 10**9 + ms * 10**6 for ms in (1, 2, 3, 4)]
    assert second_half(slow + fast) == {"seconds": 0.003, "rate": pytest.approx(1000)}


def test_cpu_time_is_shown_by_role_the_highest_first() -> None:
    rounds = [{"cpu_us": {"master": n, "web server": 10 * n}} for n in (1.0, 2.0, 9.0)]
    assert cpu_by_role(rounds) == "web server 20 µs, master 2 µs"


@pytest.mark.parametrize("command", KINDS)
def test_commands_are_called_one_by_one_and_batched(lab: Lab, command: str) -> None:
    with valkey(lab) as url:
        for options in ((), ("--batched",)):
            facts = lab.measure("lab.load.redis", command, "--seconds", 0.05, *options, REDIS_URL=url)
            assert facts["calls"] > 0


# The children


def test_the_children_of_a_child_are_ended_too(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a child whose own child is in another session and gets no signal
    monkeypatch.setattr(processes, "ORPHAN_SECONDS", 0.05)
    program = """
import subprocess, time
print(subprocess.Popen(["sleep", "60"], start_new_session=True).pid, flush=True)
time.sleep(60)
"""
    with lab.child([sys.executable, "-c", program], "parent") as child:
        orphan = psutil.Process(int(child.wait_for(r"(\d+)\n")))
        assert alive(orphan)
    assert not alive(orphan)


def test_a_program_without_a_lifeline_gets_one(lab: Lab) -> None:
    with lab.child([*WITH_LIFELINE, "sleep", "60"], "sleep") as child:
        shell = psutil.Process(child.process.pid)
        [program] = wait_until(shell.children, "the shell starts the program")
        # when the pipe from the parent is closed, as it is even if the parent is killed
        assert child.process.stdin is not None
        child.process.stdin.close()
        child.process.wait(LIMIT)
        wait_until(lambda: not alive(program), "the program ends with its shell")


def test_a_child_is_ended_after_an_error_in_its_block(lab: Lab) -> None:
    def fail() -> None:
        with lab_sink(lab) as sink:
            sink.count()
            raise RuntimeError("in the middle of a measurement")

    with pytest.raises(RuntimeError):
        fail()


def test_the_error_of_a_child_has_its_last_line(lab: Lab) -> None:
    with pytest.raises(ChildFailed, match=r"lab.load.http .*--port"):
        lab.measure("lab.load.http")


def test_the_error_of_a_child_that_cannot_start_has_its_last_line(lab: Lab) -> None:
    with (
        lab.child(python("common.processes.run", 99), "strategy-99") as child,
        pytest.raises(ChildFailed, match="no strategy 99"),
    ):
        child.wait_for("listens on (.*)")


def test_children_have_default_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMTP_URL", "smtp://real.example.com")
    monkeypatch.setenv("SMTP_SESSIONS", "1")
    environment = default_environment(PORT=0)
    assert "SMTP_URL" not in environment
    assert environment["SMTP_SESSIONS"] == "20"
    assert environment["PORT"] == "0"


def test_the_sink_listens_on_loopback_only(lab: Lab) -> None:
    with lab_sink(lab) as sink:
        [sink_process] = [child for child in psutil.Process().children() if "lab.harness.sink" in child.cmdline()]
        addresses = {c.laddr.ip for c in sink_process.net_connections() if c.status == psutil.CONN_LISTEN}
    assert addresses == {"127.0.0.1"}
    assert isinstance(sink, LabSink)
