"""The interface of a handler, which a consumer calls for each event, and what the handler's errors mean."""

from collections.abc import Sequence
from enum import Enum
from typing import Protocol, runtime_checkable

from .events import BadEvent, Event


class ErrorKind(Enum):
    """What an error of a handler means for the event."""

    TEMPORARY = "an expected error, another attempt can help: one log line, and the event is tried again"
    PERMANENT = "another attempt cannot help: the event is parked at once"
    BUG = "an unexpected error: the traceback is logged, and the event is tried again"


def default_error_kind(error: Exception) -> ErrorKind:
    return ErrorKind.PERMANENT if isinstance(error, BadEvent) else ErrorKind.BUG


class Handler(Protocol):
    name: str
    """The name of the consumer: lowercase letters, digits, _ and -."""
    events: frozenset[str] | None
    """The names of the events that it handles; all others are committed at once. None: all events."""
    window: int
    """How many events it handles at a time, at most."""

    async def handle(self, event: Event) -> None:
        """Do everything that this event asks for; the consumer commits the event when this returns.

        After an error the consumer tries the event again later. After a RedisError (Redis is down or full) it tries
        the event again as soon as it can and does not count the attempt.
        """


@runtime_checkable
class BatchHandler(Handler, Protocol):
    """A handler that is faster with many events at a time."""

    gather_seconds: float
    """The pause between two batches, in which events gather."""

    async def handle_many(self, events: Sequence[Event]) -> None:
        """Like `handle`, for all these events. After an error it is called with each half of them."""


@runtime_checkable
class OnDemandHandler(Handler, Protocol):
    """A handler that need not run all the time."""

    async def needed(self) -> bool:
        """Whether it has anything to do now."""
