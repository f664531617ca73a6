"""The events that a worker passes to a hook: one class for each transition.

The classes are not frozen, because it takes three times as long to create a frozen event, and each job has two events.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from .wire import Job

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Event:
    """The base class of all events."""


@dataclass(slots=True)
class Started(Event):
    worker: str


@dataclass(slots=True)
class Ended(Event):
    worker: str


@dataclass(slots=True)
class Polled(Event):
    """The worker has claimed jobs from its queues; `jobs` is how many it got."""

    queues: tuple[str, ...]
    jobs: int


@dataclass(slots=True)
class JobStarted(Event):
    worker: str
    job: Job
    attempt: int
    waited: float | None
    """Seconds since its id was made; None if the id holds no time."""


@dataclass(slots=True)
class Succeeded(Event):
    worker: str
    job: Job
    result: object
    seconds: float


@dataclass(slots=True)
class Reenqueued(Event):
    """The attempt has failed; the job will be retried."""

    worker: str
    job: Job
    attempt: int
    error: BaseException
    seconds: float
    """Until the retry."""


@dataclass(slots=True)
class Failed(Event):
    """The job has failed for good and is in the failed list."""

    worker: str
    job: Job | None
    """None if it was not a valid job."""
    attempt: int
    error: BaseException


@dataclass(slots=True)
class TooLate(Event):
    """A job ended after this worker's lease had ended. Another worker runs it, or ran it, a second time."""

    worker: str
    job: Job


@dataclass(slots=True)
class CleanedWorker(Event):
    """A worker that sent no heartbeat was removed; `outcome` says what happened to its job."""

    worker: str
    outcome: str


@dataclass(slots=True)
class Promoted(Event):
    """Delayed jobs were due and are in their queues."""

    jobs: int


@dataclass(slots=True)
class Fired(Event):
    """A schedule was due at this second (unix time), and its job is in its queue."""

    schedule: str
    job: Job
    second: int


@dataclass(slots=True)
class Paused(Event):
    """A queue is paused, for this reason; None: it is resumed."""

    reason: str | None


@dataclass(slots=True)
class Resized(Event):
    """The number of jobs that may run at a time has changed."""

    slots: int
    before: int
    reason: str
    delay: float
    """The event loop's smoothed delay, in seconds."""


@dataclass(slots=True)
class Erred(Event):
    """An error that no job has caused, such as an outage of Redis."""

    what: str
    error: BaseException


Hook = Callable[[Event], object]


def ignore(_: Event) -> None:
    pass


def guarded(hook: Hook) -> Hook:
    """The same hook, but its errors are only logged: an observer must not affect the worker."""

    def call(event: Event) -> None:
        try:
            hook(event)
        except BaseException:
            log.exception("error in the hook for %s", type(event).__name__)

    return call
