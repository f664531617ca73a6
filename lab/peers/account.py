"""What the jobs of a peer have recorded: how often each was done, and how fast."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.harness.figures import Facts, percentile

Run = tuple[int, int]
"""A job's number, and when it was done (ns)."""


def read_runs(record: Path) -> list[Run]:
    """The jobs that were done; none if no job has run yet."""
    return [run for run in _read(record) if run[0] >= 0]


def in_flight(record: Path) -> int:
    """How many jobs have recorded their start but are not done."""
    runs = _read(record)
    return sum(number < 0 for number, _ in runs) - sum(number >= 0 for number, _ in runs)


def _read(record: Path) -> list[Run]:
    """The complete lines of the file."""
    if not record.exists():
        return []
    text = record.read_text()
    lines = text[: text.rfind("\n") + 1].splitlines()
    return [(int(number), int(moment)) for number, moment in map(str.split, lines)]


def account(runs: Sequence[Run], count: int) -> Facts:
    """How many of the jobs 0 to `count` - 1 ran never, once, and more often; `unknown`: runs of other jobs."""
    times = Counter(number for number, _ in runs)
    known = [times[number] for number in range(count)]
    return {
        "never": known.count(0),
        "once": known.count(1),
        "more": sum(1 for done in known if done > 1),
        "unknown": sum(times.values()) - sum(known),
    }


def rate_of(runs: Sequence[Run]) -> float:
    """Jobs per second from the first to the last."""
    moments = [moment for _, moment in runs]
    return (len(moments) - 1) * 1e9 / (max(moments) - min(moments))


def idle_times(asked: Mapping[str, int], runs: Sequence[Run]) -> Facts:
    """From the call to the job, in ms."""
    done = dict(reversed(runs))  # the first run counts
    times = [(done[int(number)] - moment) / 1e6 for number, moment in asked.items()]
    return {"p50_ms": percentile(times, 50), "p99_ms": percentile(times, 99)}
