"""An event, and an event that somebody has claimed; positions in the log, and times."""

import math
import re
from typing import Any, NamedTuple

import orjson

_ID = re.compile(r"[!-~]{1,250}")  # printable ASCII without spaces
_POSITION = re.compile(r"(\d{1,20})-(\d{1,20})", re.ASCII)


class BadEvent(ValueError):
    """What stands in the log here is no event."""


class Event(NamedTuple):
    """A past fact: `name` says what has happened. `at` is when it came into the log: unix seconds, Redis's clock."""

    id: str
    name: str
    data: dict[str, Any]
    at: float = 0.0
    position: str = ""
    """In the log."""

    def check_id(self) -> None:
        """Raises ValueError for an id with spaces, or anything else that is not printable ASCII, or a long one."""
        if not _ID.fullmatch(self.id):
            raise ValueError("an event's id is printable ASCII without spaces, at most 250 characters")

    def to_json(self) -> bytes:
        return orjson.dumps({"id": self.id, "name": self.name, "data": self.data})


class Claimed(NamedTuple):
    """An event that a consumer holds for the time of a lease. Only this claim can commit it."""

    consumer: str
    position: str
    attempts: int
    """How often it has been claimed, this time included."""
    element: bytes
    """As it stands in the log."""
    until: float
    """When the lease ends unless it is extended: seconds, time.monotonic()."""
    alone: bool = False
    """It has outlived two owners: handle nothing else meanwhile, for it may be what killed them."""
    parked: bool = False
    """It was parked, and is now handled again."""
    token: int = 0
    """Which claim of its owner it was: a fencing token. The same event may be claimed twice by one process, at the same
    position with the same attempts, after a replay or when Redis has lost its tail."""
    reply: str = ""
    """In JetStream: the subject that answers this delivery."""

    def event(self) -> Event:
        """Raises BadEvent."""
        stamp, _, text = self.element.partition(b" ")
        try:
            members = orjson.loads(text)
            at = int(stamp) / 1000
        except ValueError as error:
            raise BadEvent(f"not an event: {error}") from None
        match members:
            case {"id": str(event_id), "name": str(name), "data": dict(data)} if _ID.fullmatch(event_id):
                return Event(event_id, name, data, at, self.position)
            case _:
                raise BadEvent("not an event: an object with id (one word), name and data")


def read_position(text: str) -> tuple[int, int]:
    """The two numbers of a position, "1764061234567-12". Raises ValueError."""
    found = _POSITION.fullmatch(text)
    if not found:
        raise ValueError("a position looks like 1764061234567-12")
    return int(found[1]), int(found[2])


def milliseconds(seconds: float) -> int:
    """The first whole one that is not before this time; of a time that a log has told, that very one."""
    return math.ceil(round(seconds * 1000, 3))
