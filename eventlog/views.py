"""What you can see of a log: its partitions, the place of a consumer, the result of a trim."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Partition:
    """One part of the log. `opened` and `last` (the last append) are unix seconds by Redis's clock."""

    number: str
    opened: float
    last: float
    first: int
    """How many events the log has before this partition."""
    length: int
    bytes: int
    """Of the events alone; Redis needs about a tenth more for the list."""
    sealed: bool
    trimmed: bool = False


@dataclass(frozen=True, slots=True)
class Lag:
    """The place of a consumer, and its counts."""

    position: str
    """Its cursor: every event before it is done."""
    waiting: int
    """Events that are not claimed yet."""
    pending: int
    """Events that are claimed and not committed: in flight, or waiting for a retry."""
    parked: int
    oldest_seconds: float
    """Since the event at the cursor was appended; 0 if there is none."""
    handled: int = 0
    unwanted: int = 0
    """How many of the handled events the handler does not ask for."""
    retried: int | None = 0
    """None: not known."""
    overtaken: int | None = 0
    """Events that were trimmed before this consumer had handled them."""
    given_up: int = 0
    """How often an event was parked; `parked` is how many are parked now."""


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What a trim has deleted."""

    events: int
    partitions: int
    kept_for: str | None
    """The consumer that still needs events, so that the trim has kept them."""
