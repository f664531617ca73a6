"""Strategy 5's queue at scale: a worker with a thousand queues, and one with ten thousand slots.

The group `scale` also has the queue with a million waiting jobs (queue.py) and the log with ten million events
(log.py).
"""

from collections.abc import Callable, Iterator
from functools import partial

from lab.bench.queue import sync_every_second
from lab.harness.figures import Facts, Rounds, Row, in_turns
from lab.harness.processes import Lab, python
from lab.harness.valkey import valkey

QUEUES, FEW_QUEUES = 1000, 16
SLOTS = 10_000
IDLE_SECONDS = 3
SECONDS = 120.0  # for one measurement

MAX_CONNECTIONS = 16
MAX_FIRST_MS = 5.0  # to the start of a job in one of the first 16 queues
MAX_OTHERS_MS = 200.0
MAX_MB = 200.0
MAX_STALL_MS = 50.0


def many_queues(lab: Lab) -> Iterator[Row]:
    with valkey(lab) as url:
        sync_every_second(url)
        many, few = (partial(load, lab, url, "queues", count) for count in (QUEUES, FEW_QUEUES))
        found = in_turns(lab.say, many, few)
    # With 16 queues there are no others, so the first are their reference.
    ours, bare = found.ours, [{**facts, "others": facts["first"]} for facts in found.bare]
    jobs = f"{ours[0]['jobs']} jobs, one at a time, pushed by RPUSH alone; appendfsync everysec"

    def row(name: str, unit: str, figure: Callable[[Facts], float], most: float) -> Row:
        return limited(f"{QUEUES:,} queues, {name}", unit, Rounds(ours, bare, figure), most, jobs)

    yield row("connections", "of one worker", lambda facts: float(facts["connections"]), MAX_CONNECTIONS)
    yield row("the first 16", "ms to the job's start", lambda facts: float(facts["first"]["p50_ms"]), MAX_FIRST_MS)
    yield row("the others", "ms, the worst", lambda facts: float(facts["others"]["worst_ms"]), MAX_OTHERS_MS)


def limited(name: str, unit: str, rounds: Rounds, most: float, *notes: str) -> Row:
    return Row(
        name=name,
        unit=unit,
        rounds=rounds,
        against=f"with {FEW_QUEUES} queues",
        target=f"≤ {most:g}",
        met=rounds.measured.median <= most,
        notes=notes,
    )


def many_slots(lab: Lab) -> Iterator[Row]:
    def slots() -> Facts:
        with valkey(lab) as url:
            return load(lab, url, "slots", SLOTS)

    found = in_turns(lab.say, slots, lambda: load(lab, "", "idle", IDLE_SECONDS))
    whole = all(facts["slots"] == facts["done"] == SLOTS for facts in found.ours)
    memory = Rounds(found.ours, [{"mb": facts["before_mb"]} for facts in found.ours], lambda facts: float(facts["mb"]))
    yield Row(
        name=f"{SLOTS:,} slots, memory",
        unit="MB",
        rounds=memory,
        against="the process before",
        target=f"≤ {MAX_MB:g}",
        met=whole and memory.measured.median <= MAX_MB,
        notes=(f"resident, with {SLOTS:,} sleeping jobs; {'all' if whole else 'NOT all'} were done in the end",),
    )
    stalls = Rounds(
        [facts["claiming"] for facts in found.ours],
        [facts["idle"] for facts in found.bare],
        lambda facts: float(facts["stall_ms"]),
    )
    cpu, beats, ends = (
        max(facts[phase][figure] for facts in found.ours)
        for phase, figure in (("claiming", "stall_cpu_ms"), ("beating", "stall_ms"), ("ending", "stall_ms"))
    )
    yield Row(
        name=f"{SLOTS:,} slots, claiming",
        unit="ms, longest stall of the loop",
        rounds=stalls,
        against="an idle loop",
        target=f"≤ {MAX_STALL_MS:g}",
        met=whole and stalls.measured.median <= MAX_STALL_MS,
        notes=(
            f"worst round: {cpu:.0f} ms of CPU time; {beats:.0f} ms with heartbeats; "
            f"{ends:.0f} ms when all jobs end at the same moment",
        ),
    )


def load(lab: Lab, url: str, command: str, count: int) -> Facts:
    with lab.child(python("lab.load.scale", command, count), f"scale-{command}", REDIS_URL=url) as child:
        return child.result(SECONDS)
