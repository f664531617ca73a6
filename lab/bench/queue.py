"""Strategy 5's queue itself, with jobs that do nothing: into it, out of it, from idle, and when a million wait.

The reference for rates is a SET by group commit, which is as much as redis-py and this Valkey do for single calls; that
for times is one SET. Every write is on disk before its answer (`appendfsync always`), where nothing else is said.
"""

from collections.abc import Iterator

from redis import Redis

from lab.harness.figures import Facts, Rounds, Row, in_turns
from lab.harness.processes import Lab
from lab.harness.valkey import valkey

JOBS = 50_000  # in a round
IDLE_JOBS = 200
FEW, MANY = 1000, 1_000_000  # jobs that wait
LONG_ROUNDS = 5
SET_SECONDS = 0.7

MIN_ENQUEUED = 40_000  # a second
MIN_WORKED_OFF = 20_000  # a second
MAX_IDLE_MS = 1.0
MAX_BYTES = 200  # of Redis memory for a waiting job of 100 bytes
MAX_GROWTH = (
    1.5  # of the cost of a job with a million waiting, beside that with a thousand; noise alone makes 1.2 of it
)


def queue(lab: Lab) -> Iterator[Row]:
    with valkey(lab) as url:
        load(lab, url, "enqueue", 1000)
        load(lab, url, "work", 1000)
        lab.say("enqueuing")
        into = in_turns(lab.say, lambda: load(lab, url, "enqueue", JOBS), lambda: sets(lab, url))
        lab.say("working off")
        out = in_turns(lab.say, lambda: load(lab, url, "work", JOBS), lambda: sets(lab, url))
        lab.say("from idle")
        idle_on_disk = in_turns(lab.say, lambda: load(lab, url, "idle", IDLE_JOBS), lambda: one_set(lab, url))
        set_appendfsync(url, "everysec")
        idle = in_turns(lab.say, lambda: load(lab, url, "idle", IDLE_JOBS), lambda: one_set(lab, url))
    yield rate("enqueued", into, MIN_ENQUEUED)
    yield rate("worked off", out, MIN_WORKED_OFF)
    yield from_idle(idle, "everysec", MAX_IDLE_MS)
    yield from_idle(idle_on_disk, "always", None)
    yield memory(into)


def long_queue(lab: Lab) -> Iterator[Row]:
    """The same few jobs in, out and shown, in turns where a million others wait and where a thousand do."""
    with valkey(lab) as long:
        short = long.removesuffix("/0") + "/1"  # another database of the same Redis
        load(lab, short, "enqueue", FEW)
        lab.say(f"{MANY:,} jobs come to wait")
        for _ in range(10):
            load(lab, long, "enqueue", MANY // 10)
        found = in_turns(lab.say, lambda: in_and_out(lab, long), lambda: in_and_out(lab, short), LONG_ROUNDS)
    waiting = found.ours[0]["show"]["length"]
    for name, verb in (("enqueue", "enqueued"), ("work", "worked off"), ("show", "shown")):
        ours, bare = ([facts[name] for facts in side] for side in (found.ours, found.bare))
        rounds = Rounds(ours, bare, per_job if name != "show" else shown)
        yield Row(
            name=f"queue of {MANY:,}, {verb}",
            unit="µs" if name != "show" else "ms",
            rounds=rounds,
            against=f"the same with {FEW:,}",
            target=f"ratio ≤ {MAX_GROWTH:g}",
            met=rounds.ratio.median <= MAX_GROWTH,
            notes=(f"{waiting:,} waiting; for each job" if name != "show" else "length, age, a page of 20",),
        )


def in_and_out(lab: Lab, url: str) -> Facts:
    """As many out as in, so that each round finds the queue as long as it was."""
    return {name: load(lab, url, name, count) for name, count in (("show", 200), ("enqueue", 20_000), ("work", 20_000))}


def rate(what: str, rounds: Rounds, least: int) -> Row:
    return Row(
        name=f"queue, no-op jobs {what}",
        unit="jobs/s",
        rounds=rounds,
        against="SET by group commit",
        target=f"≥ {least:,}",
        met=rounds.measured.median >= least,
        notes=(f"rounds of {JOBS:,}, one process, each on disk before its answer",),
    )


def from_idle(rounds: Rounds, appendfsync: str, most: float | None) -> Row:
    """The target is for `everysec`; with `always` there are two waits for the disk, the job's and the claim's."""
    times = Rounds(rounds.ours, rounds.bare, lambda facts: float(facts["p50_ms"]))
    return Row(
        name=f"queue, from idle, {appendfsync}",
        unit="ms to the job's start",
        rounds=times,
        against="one SET",
        target=f"≤ {most:g} ms" if most else "none",
        met=most is None or times.measured.median <= most,
        notes=(
            f"appendfsync {appendfsync}; medians of {IDLE_JOBS} jobs, one at a time; "
            f"p99 {max(facts['p99_ms'] for facts in rounds.ours):.1f} ms",
        ),
    )


def memory(rounds: Rounds) -> Row:
    sizes = Rounds(rounds.ours, [{"bytes": facts["raw_bytes"]} for facts in rounds.ours], lambda f: float(f["bytes"]))
    return Row(
        name="queue, a waiting job",
        unit="bytes of Redis memory",
        rounds=sizes,
        against="its JSON",
        target=f"≤ {MAX_BYTES}",
        met=sizes.measured.median <= MAX_BYTES,
        notes=("with what remembers its id, which goes away after an hour or two",),
    )


def per_job(facts: Facts) -> float:
    return float(1e6 / facts["rate"])


def shown(facts: Facts) -> float:
    return float(facts["p50_ms"])


def load(lab: Lab, url: str, command: str, count: int) -> Facts:
    return lab.measure("lab.load.queue", command, count, REDIS_URL=url)


def set_appendfsync(url: str, value: str) -> None:
    with Redis.from_url(url) as redis:
        redis.config_set("appendfsync", value)


def sets(lab: Lab, url: str) -> Facts:
    return lab.measure("lab.load.redis", "set", "--callers", 200, "--seconds", SET_SECONDS, "--batched", REDIS_URL=url)


def one_set(lab: Lab, url: str) -> Facts:
    return lab.measure("lab.load.redis", "set", "--callers", 1, "--seconds", SET_SECONDS, REDIS_URL=url)
