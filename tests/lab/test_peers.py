"""`make bench PEERS=1`: the account of a killed worker's jobs is right, and our own queue passes through all of it."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from lab.harness.processes import ChildFailed, Lab
from lab.peers import environments
from lab.peers.account import account, idle_times, in_flight, rate_of, read_runs
from lab.peers.catalogue import OURS, PEERS, PROGRAMS, Peer
from lab.peers.command import measure_all
from lab.peers.environments import NotInstalled, command_of
from lab.peers.measuring import Sizes, measure_rates
from lab.tables import peers as tables
from tests.support.programs import LIMIT, ROOT

SIZES = Sizes(jobs=100, idle_jobs=3, kill_jobs=600, wait_seconds=LIMIT)
[OWN] = [peer for peer in PEERS if peer.name == OURS]


def test_each_job_is_counted_as_never_once_or_more_often_done() -> None:
    runs = [(0, 10), (2, 20), (2, 30), (3, 40), (3, 50), (3, 60), (9, 70)]
    assert account(runs, 5) == {"never": 2, "once": 1, "more": 2, "unknown": 1}
    assert account([], 3) == {"never": 3, "once": 0, "more": 0, "unknown": 0}


def test_a_rate_counts_from_the_first_job_to_the_last() -> None:
    assert rate_of([(0, 2_000_000_000), (2, 1_000_000_000), (1, 3_000_000_000)]) == 1.0


def test_only_the_first_run_of_a_job_counts_as_its_start() -> None:
    times = idle_times({"1": 1_000_000, "2": 2_000_000}, [(1, 2_000_000), (2, 5_000_000), (2, 90_000_000)])
    assert times == {"p50_ms": 1.0, "p99_ms": 3.0}


def test_a_line_that_is_being_written_is_not_a_run_yet(tmp_path: Path) -> None:
    assert read_runs(tmp_path / "none") == []
    (tmp_path / "some").write_text("1 10\n2 20\n3 3")
    assert read_runs(tmp_path / "some") == [(1, 10), (2, 20)]


def test_a_job_that_has_begun_is_in_flight_until_it_is_done(tmp_path: Path) -> None:
    assert in_flight(tmp_path / "none") == 0
    (tmp_path / "some").write_text("-1 10\n-2 10\n0 20\n-3 30\n")
    assert in_flight(tmp_path / "some") == 2
    assert read_runs(tmp_path / "some") == [(0, 20)]


def test_each_peer_has_a_program_and_pinned_versions() -> None:
    for peer in PEERS:
        assert (PROGRAMS / f"{peer.name}.{'mjs' if peer.is_node else 'py'}").exists()
        assert (peer.name == OURS) == (not peer.packages)
        assert all("==" in package or "@" in package for package in peer.packages)


@pytest.mark.timeout(240)
def test_our_queue_is_measured_and_a_peer_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    broken = Peer("broken", 1, "", "")  # there is no such program
    ours, other = measure_all([OWN, broken], SIZES, 1, Console(quiet=True))
    assert ours["error"] is None
    assert set(ours["to_ours"].values()) == {1.0}
    assert (ours["kill"]["never"], ours["kill"]["unknown"]) == (0, 0)
    assert ours["kill"]["in_flight"] > 0
    assert ours["kill"]["once"] + ours["kill"]["more"] == SIZES.kill_jobs
    assert other["error"]
    assert (other["median"], other["kill"]) == (None, None)


def test_without_node_its_peers_are_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(environments, "FOLDER", tmp_path)
    for peer in PEERS:
        if peer.is_node:
            with pytest.raises(NotInstalled, match="Node with npm is not installed"):
                command_of(peer)


def test_a_worker_that_ends_is_an_error_with_its_last_line(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "import sys; sys.exit('oh dear') if sys.argv[1] == 'work' else print('{\"seconds\": 1}')",
    ]
    with pytest.raises(ChildFailed, match="oh dear"):
        measure_rates(Lab(tmp_path), replace(OWN, name="other"), command, SIZES)


def test_a_wrong_setting_is_refused() -> None:
    environment = os.environ | {"PEERS": "1", "PEERS_ONLY": "sidekiq"}
    command = [sys.executable, "-m", "lab.bench"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 2
    assert "unknown: sidekiq; choose from ours, bullmq" in done.stderr


def a_peer(name: str, **more: object) -> dict[str, object]:
    figures = {"enqueued": 2000.0, "worked": 500.0, "p50_ms": 4.0, "p99_ms": 9.0}
    kill = {
        "never": 3,
        "once": 6,
        "more": 1,
        "unknown": 0,
        "jobs": 10,
        "at_kill": 5,
        "in_flight": 4,
        "waited_seconds": 120.2,
    }
    ratios = dict.fromkeys(figures, 0.25)
    facts: dict[str, object] = {"packages": [f"{name}==1"], "concurrency": 8, "killed": "lost", "error": None}
    return {"name": name} | facts | {"median": figures, "to_ours": ratios, "kill": kill} | more


def test_the_tables_show_ratios_losses_and_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = a_peer("other", median=None, to_ours=None, kill=None, error="Node with npm is not installed")
    machine = {"cpu": "c", "cores": 2, "kernel": "k", "python": "p", "date": "d", "warning": None}
    settings = {"jobs": 1000, "rounds": 3, "wait_seconds": 120, "appendfsync": "always", "job_ms": 10}
    saved = {"machine": machine, "settings": settings, "peers": [a_peer("huey"), failed]}
    monkeypatch.setattr(tables, "results", lambda name: json.loads(json.dumps(saved)))
    long, short = "\n".join(tables.peers()), "\n".join(tables.peers_in_short())
    assert "| 2,000 (0.25) | 500 (0.25) | 4.00 (0.25) | 6 / 1 / **3** of 10, waited 120 s; 4 were in flight |" in long
    assert "not measured: Node with npm is not installed" in long
    assert "| huey | 0.25 | 0.25 | 0.25 | **3** of 10 |" in short


def test_without_results_the_tables_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise FileNotFoundError(name)

    monkeypatch.setattr(tables, "results", missing)
    assert list(tables.peers()) == list(tables.peers_in_short()) == [tables.NOT_MEASURED]
