"""Writes the events of a worker to a log."""

import logging

from asynckit.log_limit import OncePerSecond

from . import show
from .events import (
    CleanedWorker,
    Event,
    Failed,
    Fired,
    JobStarted,
    Paused,
    Reenqueued,
    Resized,
    Started,
    Succeeded,
    TooLate,
)
from .reports import explain


class LogEvents:
    """A hook that logs the events of a worker, frequent ones at most once a second. `ready` is logged at the start."""

    def __init__(self, log: logging.Logger, ready: str = "ready") -> None:
        self._log = log
        self._ready = ready
        self._often = OncePerSecond(log)

    def __call__(self, event: Event) -> None:
        match event:
            case JobStarted() | Succeeded():  # first, because nearly all events are of these classes
                pass
            case Started(worker):
                self._log.info("%s, as %s", self._ready, worker)
            case Reenqueued(_, job, attempt, error, seconds):
                again = f"again in {seconds:.1f} s, after attempt {attempt}"
                self._often.warning("%s %s: %s", show.short(job), again, show.one_line(explain(error)))
            case Failed(_, job, attempt, error):
                name = show.short(job) if job else "an invalid job"
                self._log.error("gave up %s after %d attempt(s): %s", name, attempt, show.one_line(explain(error)))
            case TooLate(_, job):
                self._often.warning(
                    "%s ended after its lease: another worker runs it, or ran it, a second time", show.short(job)
                )
            case CleanedWorker(worker, outcome):
                self._log.warning("%s was dead: %s", show.one_line(worker), show.one_line(outcome))
            case Fired(schedule, job, _):
                schedule, queue = show.one_line(schedule), show.one_line(job.queue)
                self._log.info("the schedule %s is due: %s is in %s", schedule, show.short(job), queue)
            case Paused(reason):
                if reason:
                    self._log.warning("the queue is paused: %s", show.one_line(reason))
                else:
                    self._log.info("the queue is resumed")
            case Resized(slots, before, reason, _):
                self._log.info("%d slots, not %d: %s", slots, before, reason)
