"""What a run of `make faults` can test: the strategies, the steps of chapters 3 to 6, or Redis with replicas."""

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass

from lab.faults.promises import FAULTS, STEPS, SUBJECTS, Subject
from lab.faults.topology_promises import REPLICATED, TITLES, TOPOLOGY_FAULTS

CORES = os.cpu_count() or 1


@dataclass(frozen=True)
class Suite:
    name: str
    """Of the files with the results."""
    subjects: Mapping[str, Subject]
    faults: Mapping[str, str]
    kills: int = 10
    lanes: int = 3 * CORES  # strategies at a time: mostly they wait for a killed process to restart
    promises: str = "lab/faults/promises.py"
    is_whole: bool = True
    """Whether the results may be saved."""


def chosen_suite(parser: argparse.ArgumentParser) -> Suite:
    if os.environ.get("STEPS"):
        return Suite("steps", STEPS, FAULTS)
    topology = os.environ.get("TOPOLOGY")
    if not topology:
        return Suite("faults", SUBJECTS, FAULTS)
    if topology not in (*TITLES, "all"):
        parser.error(f"TOPOLOGY: unknown: {topology}; choose from {', '.join(TITLES)}, all")
    subjects = {name: subject for name, subject in REPLICATED.items() if topology in (subject.topology, "all")}
    # A sentinel that gets no CPU for two seconds does nothing for thirty, so only one strategy runs at a time.
    whole = topology == "all" and not os.environ.get("REDIS_SERVER")
    return Suite(
        "faults_topology", subjects, TOPOLOGY_FAULTS, 3, CORES // 2 or 1, "lab/faults/topology_promises.py", whole
    )
