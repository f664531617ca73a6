"""`make faults TOPOLOGY=…`: what is promised, how it is judged, and the servers behind proxies."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common.services.service import Service
from common.settings import Settings
from lab.faults.catalogue import EVERY_INJECTION, faults_of, promise
from lab.faults.judge import broken_promises
from lab.faults.promises import Bound
from lab.faults.topology_promises import FAILOVERS, REPLICATED, TITLES, TOPOLOGY_FAULTS
from lab.harness.account import Account, Injection, Outcome
from lab.harness.nodes import proxied_nodes
from lab.harness.processes import ROOT, wait_until
from tests.support.programs import LIMIT

S = 1_000_000_000  # ns
PROMISED = promise("5_sentinel", "primary-cut")


def lost(answered: float, email_id: str = "<0123456789@example.com>") -> Outcome:
    return Outcome(due=0, asked=round(answered * S), answered=round(answered * S), status=202, id=email_id)


def reasons(fault: Injection, *outcomes: Outcome) -> list[str]:
    found = Account(acknowledged=len(outcomes), lost=len(outcomes), outcomes=list(outcomes))
    return broken_promises(PROMISED, found, [fault])


def test_every_cell_has_a_promise_and_an_injection() -> None:
    for name, subject in REPLICATED.items():
        faults = faults_of(subject)
        assert {"none", "primary-kill"} < set(faults)
        assert set(faults) <= EVERY_INJECTION.keys()
        for fault in faults:
            bound = promise(name, fault).lost
            if "ACK_REPLICAS" in subject.settings:
                assert bound is Bound.NONE
            elif subject.number > 4:
                assert (bound is Bound.NOT_REPLICATED) == (fault in FAILOVERS)
    tested = {fault for subject in REPLICATED.values() for fault in faults_of(subject)}
    assert tested == set(TOPOLOGY_FAULTS)
    assert {subject.topology for subject in REPLICATED.values()} == set(TITLES)


def test_as_much_as_was_not_replicated_may_be_lost() -> None:
    assert reasons(Injection(10 * S, 12 * S, unreplicated=1000), *[lost(11.0)] * 40) == []
    [reason] = reasons(Injection(10 * S, 12 * S, unreplicated=1000), *[lost(11.0)] * 50)
    assert reason == "50 lost, whose ids alone have 1,200 bytes; 1,000 bytes were not replicated"


@pytest.mark.parametrize("answered", [8.0, 14.0])
def test_an_email_that_was_accepted_at_another_time_must_not_be_lost(answered: float) -> None:
    [reason] = reasons(Injection(10 * S, 12 * S, unreplicated=1000), lost(answered))
    assert reason == "1 lost that were accepted before or after the faults"


def run(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {"RESULTS_DIR": str(tmp_path), "TMPDIR": str(tmp_path), "KILLS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "lab.faults"],
        cwd=ROOT, env=os.environ | own | environment, capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip


def test_an_unknown_topology_is_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, TOPOLOGY="ring")
    assert done.returncode == 2
    assert "TOPOLOGY: unknown: ring; choose from sentinel, cluster, all" in done.stderr


def test_without_the_server_that_is_named_no_cell_is_measured(tmp_path: Path) -> None:
    server = str(tmp_path / "redis-server")
    done = run(tmp_path, TOPOLOGY="sentinel", STRATEGIES="5_sentinel_ack", FAULTS="none", REDIS_SERVER=server)
    assert done.returncode == 0, done.stdout
    assert "1 of 1 cells were not measured on this machine" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="each server needs an address of its own, which only Linux has")
@pytest.mark.parametrize("topology", TITLES)
@pytest.mark.timeout(240)
def test_a_replica_behind_proxies_takes_over(topology: str, tmp_path: Path) -> None:
    with proxied_nodes(tmp_path, topology) as nodes, Service(Settings.model_construct(data_dir=tmp_path), topology):
        nodes.settle()
        before = wait_until(lambda: nodes.primary("{resque}"), "a primary")
        replicas = nodes.replicas(before)
        assert before not in replicas
        nodes.hold(replicas, [before])
        with nodes.client(before) as client:
            client.set("{resque}", "not replicated")
            written = nodes.replication(before)["master_repl_offset"]
        os.kill(nodes.pid(before), signal.SIGKILL)
        nodes.cut(before)
        new = wait_until(lambda: nodes.primary("{resque}", other_than=before), "a failover")
        nodes.restore()
        assert new in replicas
        with nodes.client(new) as client:
            assert client.get("{resque}") is None
        assert nodes.replication(new)["second_repl_offset"] - 1 < written
