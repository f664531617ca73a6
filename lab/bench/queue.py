"""Strategy 5's queue itself, with jobs that do nothing: enqueuing, processing, from idle, and with a million waiting.

The reference for rates is SET by group commit, the fastest that redis-py and this Valkey can do for single calls. The
reference for times is one SET. Unless a row says otherwise, every write is on disk before its answer (`appendfsync
always`).
"""

from collections.abc import Iterator

from redis import Redis

from lab.harness.figures import Facts, Rounds, Row, in_turns
from lab.harness.processes import Lab
from lab.harness.valkey import valkey

JOBS = 50_000  # in a round
IDLE_JOBS = 200
FEW, MANY = 1000, 1_000_000  # waiting jobs
LONG_ROUNDS = 5
SET_SECONDS = 0.7

MIN_ENQUEUED = 40_000  # per second
MIN_PROCESSED = 20_000  # per second
MAX_IDLE_MS = 1.0
MAX_BYTES = 200  # of Redis memory for a waiting job of 100 bytes
# The cost of a job with a million waiting / that with a thousand waiting. Noise alone can make it 1.2.
MAX_GROWTH = 1.5


def queue(lab: Lab) -> Iterator[Row]:
    with valkey(lab) as url:
        load(lab, url, "enqueue", 1000)
        load(lab, url, "work", 1000)
        lab.say("enqueuing")
        into = in_turns(lab.say, lambda: load(lab, url, "enqueue", JOBS), lambda: sets(lab, url))
        lab.say("processing")
        out = in_turns(lab.say, lambda: load(lab, url, "work", JOBS), lambda: sets(lab, url))
        lab.say("from idle")
        idle_on_disk = in_turns(lab.say, lambda: load(lab, url, "idle", IDLE_JOBS), lambda: one_set(lab, url))
        sync_every_second(url)
        idle = in_turns(lab.say, lambda: load(lab, url, "idle", IDLE_JOBS), lambda: one_set(lab, url))
    yield rate("enqueued", into, MIN_ENQUEUED)
    yield rate("processed", out, MIN_PROCESSED)
    yield from_idle(idle, "everysec", MAX_IDLE_MS)
    yield from_idle(idle_on_disk, "always", None)
    yield memory(into)


def long_queue(lab: Lab) -> Iterator[Row]:
    """Enqueue, process and inspect the same number of jobs, in turns with a million and a thousand others waiting."""
    with valkey(lab) as long:
        short = long.removesuffix("/0") + "/1"  # another database of the same Redis
        load(lab, short, "enqueue", FEW)
        lab.say(f"enqueuing {MANY:,} jobs")
        for _ in range(10):
            load(lab, long, "enqueue", MANY // 10)
        found = in_turns(lab.say, lambda: in_and_out(lab, long), lambda: in_and_out(lab, short), LONG_ROUNDS)
    waiting = found.ours[0]["show"]["length"]
    for name, verb in (("enqueue", "enqueued"), ("work", "processed"), ("show", "inspected")):
        ours, bare = ([facts[name] for facts in side] for side in (found.ours, found.bare))
        rounds = Rounds(ours, bare, microseconds_per_job if name != "show" else median_ms)
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
    """Enqueue and process the same number of jobs, so that the queue has the same length in each round."""
    return {name: load(lab, url, name, count) for name, count in (("show", 200), ("enqueue", 20_000), ("work", 20_000))}


def rate(what: str, rounds: Rounds, minimum: int) -> Row:
    return Row(
        name=f"queue, no-op jobs {what}",
        unit="jobs/s",
        rounds=rounds,
        against="SET by group commit",
        target=f"≥ {minimum:,}",
        met=rounds.measured.median >= minimum,
        notes=(f"rounds of {JOBS:,}, one process, each on disk before its answer",),
    )


def from_idle(rounds: Rounds, appendfsync: str, maximum: float | None) -> Row:
    """The target applies to `everysec`. With `always` the disk is written twice, for the job and for the claim."""
    times = Rounds(rounds.ours, rounds.bare, lambda facts: float(facts["p50_ms"]))
    return Row(
        name=f"queue, from idle, {appendfsync}",
        unit="ms to the job's start",
        rounds=times,
        against="one SET",
        target=f"≤ {maximum:g} ms" if maximum else "none",
        met=maximum is None or times.measured.median <= maximum,
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
        notes=("including the record of its id, which is deleted after an hour or two",),
    )


def microseconds_per_job(facts: Facts) -> float:
    return float(1e6 / facts["rate"])


def median_ms(facts: Facts) -> float:
    return float(facts["p50_ms"])


def load(lab: Lab, url: str, command: str, count: int) -> Facts:
    return lab.measure("lab.load.queue", command, count, REDIS_URL=url)


def sync_every_second(url: str) -> None:
    with Redis.from_url(url) as redis:
        redis.config_set("appendfsync", "everysec")


def sets(lab: Lab, url: str) -> Facts:
    return lab.measure("lab.load.redis", "set", "--callers", 200, "--seconds", SET_SECONDS, "--batched", REDIS_URL=url)


def one_set(lab: Lab, url: str) -> Facts:
    return lab.measure("lab.load.redis", "set", "--callers", 1, "--seconds", SET_SECONDS, REDIS_URL=url)
