"""`make bench PEERS=1`. Prints a table and writes results/peers.json.

In each round every peer is measured once, one after the other; the ratios to ours are computed for each round. After
the last round, the workers of the peers are killed, several at a time. If a peer cannot be installed or fails, its
error is printed, and the other peers are measured. A run takes about a quarter of an hour.
PEERS_JOBS, PEERS_ROUNDS, PEERS_WAIT (seconds after a kill) and PEERS_ONLY="saq arq" make it shorter; the results are
then written into results/partial/ instead.
"""

import argparse
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from lab.harness.command import end_on_signals, files_written, names_from, number_from, refuse_env_overrides
from lab.harness.command import write_results as write
from lab.harness.figures import Facts
from lab.harness.machine import busy, describe_machine
from lab.harness.processes import ChildFailed, Lab
from lab.peers.catalogue import OURS, PEERS, Peer
from lab.peers.environments import NotInstalled, command_of
from lab.peers.measuring import KILL_JOB_MS, Sizes, measure_kill, measure_rates

JOBS, ROUNDS, WAIT_SECONDS = 10_000, 3, 120
IDLE_JOBS = 50
KILL_JOBS = 2000
KILLS_AT_ONCE = 4  # peers: after a kill each one mostly waits, and other programs cannot distort the counts
FIGURES = ("enqueued", "worked", "p50_ms", "p99_ms")
SETTINGS = ("PEERS_JOBS", "PEERS_ROUNDS", "PEERS_WAIT", "PEERS_ONLY")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    jobs = int(number_from(parser, "PEERS_JOBS", JOBS, 100))
    rounds = int(number_from(parser, "PEERS_ROUNDS", ROUNDS, 1))
    wait = number_from(parser, "PEERS_WAIT", WAIT_SECONDS, 1)
    names = names_from(parser, "PEERS_ONLY", [peer.name for peer in PEERS])
    refuse_env_overrides(parser)
    end_on_signals()
    machine = describe_machine() | {"warning": busy()}
    sizes = Sizes(jobs, min(IDLE_JOBS, jobs), min(KILL_JOBS, jobs), wait)
    console = Console()
    chosen = [peer for peer in PEERS if peer.name in names or peer.name == OURS]  # the ratios need ours
    found = measure_all(chosen, sizes, rounds, console)
    settings = {"jobs": jobs, "rounds": rounds, "wait_seconds": wait, "appendfsync": "always", "job_ms": KILL_JOB_MS}
    whole = not any(os.environ.get(name) for name in SETTINGS)
    paths = write("peers", {"machine": machine, "settings": settings, "peers": found}, whole=whole)
    console.print(f"[dim]{files_written(paths)}[/]")
    sys.exit(1 if any(facts["error"] for facts in found) else 0)


def measure_all(peers: Sequence[Peer], sizes: Sizes, rounds: int, console: Console) -> list[Facts]:
    """Returns the facts of each peer; `error` is the reason if it could not be measured."""
    errors: dict[str, str] = {}
    measured: dict[str, list[Facts]] = defaultdict(list)
    kills: dict[str, Facts] = {}

    def attempt(step: str, measure: Any, peer: Peer, lab: Lab) -> Facts | None:
        if peer.name in errors:
            return None
        try:
            facts: Facts = measure(lab, peer, command_of(peer), sizes)
        except (NotInstalled, ChildFailed) as error:
            errors[peer.name] = str(error)
            console.print(f"{peer.name}: {error}", style="bold red", highlight=False, markup=False)
            return None
        console.print(f"{peer.name}, {step}: {short(facts)}", highlight=False, markup=False)
        return facts

    with TemporaryDirectory(prefix="six-ways-peers-") as folder:
        for number in range(rounds):
            for peer in peers:
                lab = Lab(_new(folder, f"{number}-{peer.name}"))
                if facts := attempt(f"round {number + 1} of {rounds}", measure_rates, peer, lab):
                    measured[peer.name].append(facts)
        labs = [Lab(_new(folder, f"kill-{peer.name}")) for peer in peers]
        with ThreadPoolExecutor(KILLS_AT_ONCE) as threads:
            for peer, facts in zip(
                peers, threads.map(partial(attempt, "kill -9", measure_kill), peers, labs), strict=True
            ):
                if facts:
                    kills[peer.name] = facts
    return [summary(peer, measured, kills.get(peer.name), errors.get(peer.name)) for peer in peers]


def _new(folder: str, name: str) -> Path:
    path = Path(folder, name)
    path.mkdir()
    return path


def summary(peer: Peer, measured: dict[str, list[Facts]], kill: Facts | None, error: str | None) -> Facts:
    """The medians of all rounds, and of the ratios to ours round by round."""
    rounds, ours = measured[peer.name], measured[OURS]
    return {
        "name": peer.name,
        "packages": peer.packages,
        "concurrency": peer.concurrency,
        "why": peer.why,
        "killed": peer.killed,
        "error": error,
        "rounds": rounds,
        "median": {name: median(facts[name] for facts in rounds) for name in FIGURES} if rounds else None,
        "to_ours": {
            name: median(facts[name] / own[name] for facts, own in zip(rounds, ours, strict=False)) for name in FIGURES
        }
        if rounds and ours
        else None,
        "kill": kill,
    }


def short(facts: Facts) -> str:
    if "enqueued" in facts:
        return (
            f"{facts['enqueued']:,.0f} enqueued and {facts['worked']:,.0f} worked off per second; from idle "
            f"{facts['p50_ms']:.2f} ms (p99 {facts['p99_ms']:.1f})"
        )
    return (
        f"of {facts['jobs']:,} jobs, killed at {facts['at_kill']:,} with {facts['in_flight']:,} in flight: "
        f"{facts['once']:,} done once, "
        f"{facts['more']:,} more than once, {facts['never']:,} not done within {facts['waited_seconds']:.0f} s"
    )
