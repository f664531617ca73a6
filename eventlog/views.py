"""What there is to see of a log: its partitions, where a consumer stands in it, what a trim has done."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Partition:
    """One stretch of the log. `opened` and `last` (the last append) are unix seconds by Redis's clock."""

    number: str
    opened: float
    last: float
    first: int
    length: int
    bytes: int
    """Of the events alone; lists need about a tenth more."""
    sealed: bool
    trimmed: bool = False


@dataclass(frozen=True, slots=True)
class Lag:
    """Where a consumer stands."""

    position: str
    """Its cursor: all before it is done."""
    waiting: int
    """Events that nobody has claimed yet."""
    pending: int
    """Claimed and not committed: they are being handled, or wait for another try."""
    parked: int
    oldest_seconds: float
    """Since the event at the cursor was appended; 0 if there is none."""
    handled: int = 0
    unwanted: int = 0
    """How many of the handled ones were none of its business."""
    retried: int | None = 0
    """None: not known."""
    overtaken: int | None = 0
    """Events that were trimmed before this consumer had done them."""
    given_up: int = 0
    """How often an event was parked; `parked` is how many are parked now."""


@dataclass(frozen=True, slots=True)
class Trimmed:
    events: int
    partitions: int
    kept_for: str | None
    """The consumer without which more would have gone."""
