"""The charts of the last ten minutes as shapes of an SVG, which the template draws in the colours of the page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .. import show
from ..keys import CHART_SECONDS
from ..states import Moment

WIDTH, HEIGHT = 440, 130  # of the drawing, in SVG units
NICE = (1, 2, 5, 10)


@dataclass(frozen=True, slots=True)
class Bar:
    kind: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Line:
    kind: str
    points: str
    """The `points` of an SVG polyline."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A horizontal line and its label."""

    y: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    summary: str
    """The chart in one sentence, also for screen readers."""
    marks: list[Mark]
    bars: list[Bar]
    lines: list[Line]
    head: Sequence[str]
    rows: list[tuple[str, ...]]
    """The same data as a table, one row for each minute."""


def throughput(moments: Sequence[Moment]) -> Chart:
    """Jobs per second, in steps of ten seconds: succeeded, with retried and failed stacked on top."""
    most = max((m.succeeded + m.retried + m.failed for m in moments), default=0) / CHART_SECONDS
    top = _nice(most)
    succeeded, retried, failed = (
        sum(getattr(moment, name) for moment in moments) for name in ("succeeded", "retried", "failed")
    )
    summary = (
        f"The last ten minutes: {succeeded:,} jobs succeeded, {failed:,} failed, {retried:,} attempts will be repeated;"
        f" at most {most:,.1f} a second."
    )
    rows = [
        (
            _clock(minute[0]),
            *(f"{sum(getattr(m, name) for m in minute):,}" for name in ("succeeded", "retried", "failed")),
        )
        for minute in _minutes(moments)
    ]
    marks = [Mark(HEIGHT * (1 - share), f"{top * share:,g}") for share in (1.0, 0.5)]
    return Chart(summary, marks, _stacked(moments, top), [], ("minute", "succeeded", "retried", "failed"), rows)


def _stacked(moments: Sequence[Moment], top: float) -> list[Bar]:
    width = WIDTH / max(1, len(moments))
    bars = []
    for number, moment in enumerate(moments):
        base = float(HEIGHT)
        counts = (("succeeded", moment.succeeded), ("retried", moment.retried), ("failed", moment.failed))
        for kind, count in counts:
            height = count / CHART_SECONDS / top * HEIGHT
            if count:
                base -= height
                bars.append(
                    Bar(kind, round(number * width + 1, 1), round(base, 1), round(width - 2, 1), round(height, 1))
                )
    return bars


def waiting_times(moments: Sequence[Moment]) -> Chart:
    """The median and the 95th percentile of the time that jobs had waited, on a logarithmic scale from 1 ms."""
    waits = [(number, moment.waited(50), moment.waited(95)) for number, moment in enumerate(moments)]
    longest = max((high for _, _, high in waits if high is not None), default=0.0)
    decades = min(9, max(3, math.ceil(math.log10(max(longest, 0.001) * 1000))))
    step = WIDTH / max(1, len(moments))

    def y(seconds: float) -> float:
        share = math.log10(max(seconds, 0.001) * 1000) / decades
        return round(HEIGHT * (1 - min(1.0, share)), 1)

    bars, lines = [], []
    for kind, index in (("high", 2), ("median", 1)):
        points = [(number, value[index]) for number, *_ in waits if (value := waits[number])[index] is not None]
        known = [(number, value) for number, value in points if value is not None]
        for run in _runs(known):
            lines.append(Line(kind, " ".join(f"{(n + 0.5) * step:.1f},{y(value)}" for n, value in run)))
            bars += [Bar(kind, round((n + 0.5) * step - 1.5, 1), y(value) - 1.5, 3, 3) for n, value in run]
    total = _together(moments)
    summary = "In the last ten minutes no job with a time in its id has succeeded."
    if total.waits:
        summary = (
            f"The last ten minutes: half of the jobs had waited at most {show.duration(total.waited(50))}, "
            f"95 of 100 at most {show.duration(total.waited(95))}."
        )
    rows = [
        (_clock(minute[0]), *(_wait(_together(minute).waited(percent)) for percent in (50, 95)))
        for minute in _minutes(moments)
    ]
    marks = [Mark(y(10**power / 1000), _label(power)) for power in range(1, decades + 1)]
    return Chart(summary, marks, bars, lines, ("minute", "median", "p95"), rows)


def _runs(points: Sequence[tuple[int, float]]) -> list[list[tuple[int, float]]]:
    """The points in runs without gaps: no line is drawn across a time without data."""
    runs: list[list[tuple[int, float]]] = []
    for number, value in points:
        if not runs or runs[-1][-1][0] != number - 1:
            runs.append([])
        runs[-1].append((number, value))
    return runs


def _minutes(moments: Sequence[Moment]) -> list[Sequence[Moment]]:
    step = 60 // CHART_SECONDS
    return [moments[start : start + step] for start in range(0, len(moments), step)]


def _together(moments: Sequence[Moment]) -> Moment:
    waits: dict[int, int] = {}
    for moment in moments:
        for power, count in moment.waits.items():
            waits[power] = waits.get(power, 0) + count
    return Moment(0, 0, 0, 0, waits)


def _clock(moment: Moment) -> str:
    return show.moment(moment.second)[11:16]


def _wait(seconds: float | None) -> str:
    return "" if seconds is None else f"≤ {show.duration(seconds)}"


def _label(power: int) -> str:
    return f"{10**power} ms" if power < 3 else f"{10 ** (power - 3):,} s"


def _nice(most: float) -> float:
    """The next round number, for the top of a scale."""
    if most <= 0:
        return 1.0
    decade = 10.0 ** math.floor(math.log10(most))
    return next(decade * step for step in NICE if decade * step >= most * 0.999)
