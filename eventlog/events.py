"""Events, claimed events, positions and times."""

import math
import re
from typing import Any, NamedTuple

import orjson

_ID = re.compile(r"[!-~]{1,250}")  # printable ASCII without spaces
LATEST_MS = 253_402_300_799_999  # the end of the year 9999, after which Python has no dates
_POSITION = re.compile(r"(\d{1,20})-(\d{1,20})", re.ASCII)


class BadEvent(ValueError):
    """An entry of the log is not a valid event."""


class Event(NamedTuple):
    """A fact about the past: `name` says what happened. `at`: when it was appended, unix seconds by Redis's clock."""

    id: str
    name: str
    data: dict[str, Any]
    at: float = 0.0
    position: str = ""
    """In the log."""

    def check_id(self) -> None:
        """Raises ValueError if the id has spaces, is longer than 250 characters, or is not printable ASCII."""
        if not _ID.fullmatch(self.id):
            raise ValueError("an event's id must be printable ASCII without spaces, at most 250 characters")

    def to_json(self) -> bytes:
        return orjson.dumps({"id": self.id, "name": self.name, "data": self.data})


class Claimed(NamedTuple):
    """An event that a consumer holds under a lease. Only this claim can commit it."""

    consumer: str
    position: str
    attempts: int
    """How often it has been claimed, including this claim."""
    element: bytes
    """The entry of the log, not decoded."""
    until: float
    """When the lease ends unless it is renewed: seconds, time.monotonic()."""
    alone: bool = False
    """Handle no other event at the same time: this one may have killed the processes that held it."""
    parked: bool = False
    """It was parked and is retried."""
    token: int = 0
    """The number of this claim in its process: a fencing token. One process may claim the same position twice with the
    same number of attempts: after a replay, or when Redis has lost its last writes."""
    reply: str = ""
    """In JetStream: the subject that answers this delivery."""

    def event(self) -> Event:
        """Raises BadEvent."""
        stamp, _, text = self.element.partition(b" ")
        try:
            members, stamped = orjson.loads(text), int(stamp)
            if not 0 <= stamped <= LATEST_MS:
                raise ValueError("its time is not a date")
        except ValueError as error:
            raise BadEvent(f"not a valid event: {error}") from None
        if isinstance(members, dict):
            event_id, name, data = members.get("id"), members.get("name"), members.get("data")
            if (
                isinstance(event_id, str)
                and isinstance(name, str)
                and isinstance(data, dict)
                and _ID.fullmatch(event_id)
            ):
                return Event(event_id, name, data, stamped / 1000, self.position)
        raise BadEvent("not a valid event: it must be an object with id (without spaces), name and data")


def read_position(text: str) -> tuple[int, int]:
    """The two numbers of a position such as "1764061234567-12". Raises ValueError."""
    found = _POSITION.fullmatch(text)
    if not found:
        raise ValueError("a position looks like 1764061234567-12")
    return int(found[1]), int(found[2])


def milliseconds(seconds: float) -> int:
    """The first whole millisecond at or after this time; for a time that was read from an event, the event's own."""
    return math.ceil(round(seconds * 1000, 3))
