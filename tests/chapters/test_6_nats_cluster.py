"""`make run-6 LOG=jetstream NATS=cluster`: three nodes keep every event, and two of them are enough."""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from common.services.service import running
from eventlog.errors import LogError
from tests.support.event_bus import asked, on_jetstream, settled
from tests.support.load import Load, account
from tests.support.programs import LIMIT, Program, Strategy, is_alive, someone, wait_until
from tests.support.servers import Inbox

NODES = ("node-1", "node-2", "node-3")
WINDOW = 50  # emails in flight in a worker


@contextmanager
def on_cluster(inbox: Inbox, data_dir: Path, **environment: str) -> Iterator[Strategy]:
    with on_jetstream(inbox, data_dir, NATS="cluster", **environment) as strategy:
        wait_until(strategy.healthy, "the cluster has a leader")
        yield strategy
        pids = [pid_of(data_dir, name) for name in NODES]
    assert not any(map(is_alive, pids)), "no node is left behind"


def pid_of(data_dir: Path, name: str) -> int:
    return int((data_dir / "nats_cluster" / f"{name}.pid").read_text())


def stream(data_dir: Path) -> dict[str, Any]:
    """What the cluster says about the stream of the events."""
    facts = running(data_dir, "nats_cluster")
    assert facts
    found: dict[str, Any] = asked(facts["nats_1_port"], "STREAM.INFO.eventlog")
    return found


def all_current(data_dir: Path) -> bool:
    with suppress(LogError):  # the node that is asked has just been started again
        return all(replica["current"] for replica in stream(data_dir)["cluster"]["replicas"])
    return False


def test_a_killed_leader_is_replaced_and_started_again_and_nothing_is_lost(inbox: Inbox, tmp_path: Path) -> None:
    with on_cluster(inbox, tmp_path) as strategy:
        greeting = strategy.program.wait_for_line(r"look into it\s+(nats://\S+) \[nats_cluster @ \d+\]")[1]
        assert len(re.findall(r"nats://127.0.0.1:\d+", greeting)) == 3
        found = stream(tmp_path)
        assert found["config"]["num_replicas"] == 3
        killed = pid_of(tmp_path, found["cluster"]["leader"])
        with Load(strategy, someone(), clients=2) as load:
            load.wait_for_more(20)
            os.kill(killed, signal.SIGKILL)
            begin = time.monotonic()
            load.wait_for_more(20)
            back = time.monotonic() - begin
        settled(strategy)
        counted = account(load, inbox)
        print(f"leader of three nodes killed: {counted}, answers {dict(load.statuses)}, 20 more after {back:.1f} s")
        assert counted.lost == 0, counted
        assert counted.duplicated <= WINDOW, counted
        wait_until(lambda: pid_of(tmp_path, found["cluster"]["leader"]) != killed, "the node is started again")
        wait_until(lambda: all_current(tmp_path), "it has caught up")
        stored = stream(tmp_path)["state"]["messages"]
    with on_cluster(inbox, tmp_path, ROLE="server") as strategy:
        assert strategy.stats()["events"] == stored, "the second start has the events of the first"


def test_without_jetstream_it_is_refused(tmp_path: Path) -> None:
    program = Program(["make", "-s", "run-6"], {"NATS": "cluster", "DATA_DIR": str(tmp_path), "PORT": "0"})
    program.wait_for_line("^NATS: cluster needs LOG=jetstream$")
    assert program.process.wait(LIMIT) == 2
