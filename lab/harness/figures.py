"""Figures from measurements: medians, percentiles, and ratios of two things that were measured in turns."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Self

ROUNDS = 3

Facts = dict[str, Any]


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` % of the values do not exceed (nearest rank); nan without values."""
    if not values:
        return math.nan
    rank = math.ceil(len(values) * percent / 100)
    return sorted(values)[max(rank, 1) - 1]


def format_number(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2f}"


@dataclass(frozen=True)
class Spread:
    """The results of several rounds. The median, because on a shared machine other programs distort the mean."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True)
class Rounds:
    """The facts of each round, of our part and of the bare reference. `figure` gets the number to compare from them."""

    ours: list[Facts]
    bare: list[Facts]
    figure: Callable[[Facts], float] = lambda facts: float(facts["rate"])

    @property
    def measured(self) -> Spread:
        return Spread.of([self.figure(facts) for facts in self.ours])

    @property
    def reference(self) -> Spread:
        return Spread.of([self.figure(facts) for facts in self.bare])

    @property
    def ratio(self) -> Spread:
        """Measured / reference, round by round: another program that slows a round slows both sides of its ratio."""
        return Spread.of([self.figure(a) / self.figure(b) for a, b in zip(self.ours, self.bare, strict=True)])

    def times(self) -> str:
        p50, p99 = (max(facts[name] for facts in self.ours) for name in ("p50_ms", "p99_ms"))
        return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms (worst round)"


def in_turns(
    say: Callable[[str], object], ours: Callable[[], Facts], bare: Callable[[], Facts], rounds: int = ROUNDS
) -> Rounds:
    """Measure our part and the bare reference in turns, `rounds` times. `say` gets the progress."""
    found = Rounds([], [])
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        found.ours.append(ours())
        found.bare.append(bare())
    return found


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    unit: str
    rounds: Rounds
    against: str
    """The name of the reference."""
    target: str
    met: bool
    """Whether the median meets the target and every account closes."""
    notes: tuple[str, ...]
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        """The name of the reference, and a remark if each side was measured only once, so that no spread is known."""
        return self.against + (", one round" if len(self.rounds.ours) == 1 else "")

    def to_dict(self) -> dict[str, Any]:
        rounds = self.rounds
        return {
            "name": self.name,
            "unit": self.unit,
            "measured": asdict(rounds.measured),
            "reference": asdict(rounds.reference),
            "against": self.reference,
            "ratio": asdict(rounds.ratio),
            "target": self.target,
            "met": self.met,
            "notes": self.notes,
            **self.details,
            "rounds": {"ours": rounds.ours, "bare": rounds.bare},
        }


def describe_account(missing: int, arrived: int) -> str:
    if missing:
        return f"the counts of sent and arrived emails differ by {missing:+,}"
    return f"{arrived:,} emails sent, all arrived"
