"""The log of strategy 6 from one process: partitions with Lua, beside the same log on Redis Streams.

The group `scale` also checks that the cost of an event does not grow with the log, up to LOG_EVENTS events. By default
this is ten million, which takes some minutes and 4 GB of memory, or one million if less than MEMORY is free. The row
names the number.
"""

import os
from collections.abc import Iterator

import psutil

from lab.harness.figures import Facts, Rounds, Row, in_turns
from lab.harness.processes import Lab, python
from lab.harness.strategies import strategies
from lab.harness.valkey import valkey

EVENTS = 50_000  # in a round
BATCH = 1000
CURVE_SECONDS = 1200.0
SMALLEST, LARGE, LARGEST = 1000, 1_000_000, 10_000_000
MEMORY = 8 << 30  # bytes that must be free for the largest log: Redis, its copy in the page cache, and some room

KINDS = ("appending", "end", "middle", "plain")

MIN_RATE = 30_000  # events per second
# The CPU time of Redis for an event, as a multiple of that of plain commands, in the largest log / that in the
# smallest. Plain commands are slower in a large memory too. Other programs on the machine alone can make it 1.3.
MAX_GROWTH = 1.5


def log(lab: Lab) -> Iterator[Row]:
    if not strategies(6):
        return
    rounds = in_turns(lab.say, lambda: measure(lab, "lua"), lambda: measure(lab, "streams"))
    for name, what in (("appending", "appends"), ("consuming", "claims and commits")):
        found = Rounds(rounds.ours, rounds.bare, figure=lambda facts, name=name: float(facts[name]["rate"]))  # type: ignore[misc]
        yield Row(
            name=f"the log {what}",
            unit="events/s",
            rounds=found,
            against="on Streams",
            target=f"≥ {MIN_RATE:,}",
            met=found.measured.median >= MIN_RATE,
            notes=(
                f"{EVENTS:,} events in batches of {BATCH:,}, one process, on disk before the answer; Redis's CPU time "
                f"{redis_us(rounds.ours, name):.1f} µs an event, on Streams {redis_us(rounds.bare, name):.1f} µs",
            ),
        )
    kept = Rounds(rounds.ours, rounds.bare, figure=lambda facts: float(facts["bytes_per_event"]))
    yield Row(
        name="the log in memory",
        unit="bytes/event",
        rounds=kept,
        against="on Streams",
        target="none",
        met=True,
        notes=(
            "the event itself has 347 bytes; its id is stored for a minute or two, in "
            f"{rounds.ours[0]['bytes_of_ids']:.0f} more bytes, on Streams in {rounds.bare[0]['bytes_of_ids']:.0f}",
        ),
    )


def long_log(lab: Lab) -> Iterator[Row]:
    if strategies(6):
        yield growth(curve(lab, largest()))


def largest() -> int:
    free = psutil.virtual_memory().available
    return int(os.environ.get("LOG_EVENTS", LARGEST if free >= MEMORY else LARGE))


def growth(points: list[Facts]) -> Row:
    first, last = points[0], points[-1]
    cost = Rounds([cost_of(last)], [cost_of(first)])
    costs = "; ".join(f"{p['events']:,}: {times(p)}" for p in points)
    rates = "; ".join(f"{p['events']:,}: {p['appending']['rate']:,.0f}, {p['end']['rate']:,.0f}" for p in points)
    return Row(
        name=f"the log grows to {last['events']:,} events",
        unit="times plain commands",
        rounds=cost,
        against=f"with {first['events']:,} events",
        target=f"ratio ≤ {MAX_GROWTH:g}",
        met=cost.ratio.median <= MAX_GROWTH,
        notes=(
            f"µs of Redis's CPU time for appending, consuming at the end and in the middle, plain commands: {costs}",
            f"appends per second, claims and commits per second: {rates}",
        ),
        details={"points": points},
    )


def times(point: Facts) -> str:
    return ", ".join([f"{point[name]['redis_us']:.1f}" for name in KINDS])


def cost_of(point: Facts) -> Facts:
    appending, end, middle, plain = (float(point[name]["redis_us"]) for name in KINDS)
    return {"rate": (appending + end + middle) / plain}


def redis_us(facts: list[Facts], name: str) -> float:
    return sorted(float(one[name]["redis_us"]) for one in facts)[len(facts) // 2]


def measure(lab: Lab, kind: str) -> Facts:
    with valkey(lab) as url:
        return lab.measure("lab.load.log", kind, "--count", EVENTS, "--batch", BATCH, REDIS_URL=url)


def curve(lab: Lab, most: int) -> list[Facts]:
    sizes = [SMALLEST]
    while sizes[-1] * 10 <= most:
        sizes.append(sizes[-1] * 10)
    lab.say(f"up to {sizes[-1]:,} events")
    with valkey(lab) as url:
        command = python("lab.load.log", "lua", "--batch", BATCH, "--sizes", *sizes)
        with lab.child(command, "curve", REDIS_URL=url) as child:
            found: list[Facts] = child.result(CURVE_SECONDS)["points"]
    return found
