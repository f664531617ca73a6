"""What a consumer calls for each event, and what an error of that call means."""

from collections.abc import Sequence
from enum import Enum
from typing import Protocol, runtime_checkable

from .events import BadEvent, Event


class ErrorKind(Enum):
    """What an error of a handler means for the event."""

    TEMPORARY = "another attempt can help, and the error is expected: one line in the log"
    PERMANENT = "another attempt cannot help: the event is parked at once"
    BUG = "unexpected: the traceback goes into the log, and the event is tried again"


def default_error_kind(error: Exception) -> ErrorKind:
    return ErrorKind.PERMANENT if isinstance(error, BadEvent) else ErrorKind.BUG


class Handler(Protocol):
    name: str
    """Of the consumer: small letters, digits, _ and -."""
    events: frozenset[str] | None
    """The names of the events that it wants, the others are done at once; None: all."""
    window: int
    """How many it may have in its hands at a time."""

    async def handle(self, event: Event) -> None:
        """Return when all is done that this event asks for; only then it is committed. Any error: later again.

        A RedisError: as soon as possible, and that was no attempt, for Redis is away, or full.
        """


@runtime_checkable
class BatchHandler(Handler, Protocol):
    """One that is faster when it gets many together."""

    gather_seconds: float
    """The pause between one batch and the next, in which events gather."""

    async def handle_many(self, events: Sequence[Event]) -> None:
        """As `handle`, for all of these; an error says nothing about any one of them: then it gets halves of them."""


@runtime_checkable
class Sleeper(Handler, Protocol):
    """One that need not run at all times."""

    async def wanted(self) -> bool:
        """Whether there is anything to do for it now."""
