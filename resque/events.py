"""What a worker tells of what it does: one small class for each transition, handed to a hook."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from .wire import Job

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """Any of the below."""


@dataclass(frozen=True, slots=True)
class Started(Event):
    worker: str


@dataclass(frozen=True, slots=True)
class Ended(Event):
    worker: str


@dataclass(frozen=True, slots=True)
class Polled(Event):
    """The queues were asked for jobs."""

    queues: tuple[str, ...]
    jobs: int


@dataclass(frozen=True, slots=True)
class JobStarted(Event):
    worker: str
    job: Job
    attempt: int
    waited: float | None
    """Seconds since its id was made; None if its id does not tell."""


@dataclass(frozen=True, slots=True)
class Succeeded(Event):
    worker: str
    job: Job
    result: object
    seconds: float


@dataclass(frozen=True, slots=True)
class Reenqueued(Event):
    """The attempt has failed; the job is tried again."""

    worker: str
    job: Job
    attempt: int
    error: BaseException
    seconds: float
    """Until then."""


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """Given up: it is in `failed` now."""

    worker: str
    job: Job | None
    """None: what was in the queue is no job."""
    attempt: int
    error: BaseException


@dataclass(frozen=True, slots=True)
class TooLate(Event):
    """A job was finished that was not this worker's any more: its lease had ended. It runs, or ran, a second time."""

    worker: str
    job: Job


@dataclass(frozen=True, slots=True)
class CleanedWorker(Event):
    """A worker that gives no sign of life was cleaned away; `outcome` says what became of its job."""

    worker: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Promoted(Event):
    """Delayed jobs were due."""

    jobs: int


@dataclass(frozen=True, slots=True)
class Fired(Event):
    """A schedule was due at this second (unix time), and its job is in its queue."""

    schedule: str
    job: Job
    second: int


@dataclass(frozen=True, slots=True)
class Paused(Event):
    """Nobody takes jobs for a while; None: they do again."""

    reason: str | None


@dataclass(frozen=True, slots=True)
class Resized(Event):
    """The number of jobs that may run at a time has changed."""

    slots: int
    before: int
    reason: str
    delay: float
    """The event loop's smoothed delay, in seconds."""


@dataclass(frozen=True, slots=True)
class Erred(Event):
    """Something went wrong that is no job's fault, such as an outage of Redis."""

    what: str
    error: BaseException


Hook = Callable[[Event], object]


def ignore(_: Event) -> None:
    pass


def guarded(hook: Hook) -> Hook:
    """The same hook, whose errors are logged and go no further: who watches must not change what happens."""

    def call(event: Event) -> None:
        try:
            hook(event)
        except BaseException:
            log.exception("error in the hook for %s", type(event).__name__)

    return call
