"""The tables of Redis with replicas: Sentinel and Cluster."""

from collections.abc import Iterator

from lab.compare.compare_report import machine_of
from lab.faults.topology_promises import REPLICATED, TITLES, TOPOLOGY_FAULTS, topology_faults_of
from lab.harness.figures import Facts
from lab.tables.overview import lost_and_twice
from lab.tables.saved import results

NOT_MEASURED = "(Not measured yet: `make faults TOPOLOGY=all` measures it.)"


def topology() -> Iterator[str]:
    """Lost and twice for each strategy and fault, one table for each topology."""
    try:
        facts = results("faults_topology")
    except FileNotFoundError:
        yield NOT_MEASURED
        return
    cells = {(cell["subject"], cell["fault"]): cell for cell in facts["cells"]}
    for name in TITLES:
        yield from table(name, cells)
        yield ""
    totals, settings = facts["totals"], facts["settings"]
    broken = sum(bool(cell["broken"]) for cell in facts["cells"])
    yield (
        f"{totals['faults']:,} faults, each {settings['KILLS']} times, at {settings['RATE']:g} emails per second; "
        f"{totals['acknowledged']:,} emails accepted, {totals['lost']:,} lost; {totals['duplicated']:,} duplicates. "
        f"{broken or 'No'} promise{'s were' if broken > 1 else ' was'} broken (SEED={settings['SEED']}; "
        f"{machine_of(facts)}). All cells are in [`faults_topology.md`](faults_topology.md)."
    )


def table(topology: str, cells: dict[tuple[str, str], Facts]) -> Iterator[str]:
    subjects = {name: subject for name, subject in REPLICATED.items() if subject.topology == topology}
    yield "| lost / twice | " + " | ".join(subject.title for subject in subjects.values()) + " |"
    yield "|---" * (len(subjects) + 1) + "|"
    promised = {fault for subject in subjects.values() for fault in topology_faults_of(subject)}
    for fault in [fault for fault in TOPOLOGY_FAULTS if fault in promised - {"none"}]:
        found = [lost_and_twice(cells.get((name, fault))) for name in subjects]
        yield f"| {TOPOLOGY_FAULTS[fault]} | {' | '.join(found)} |"
