"""What a job does and how it is tried: the definitions that the workers (and those who enqueue) share.

A job's class is a name and nothing else. It is looked up here, never imported: what stands in Redis may be anybody's.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from asynckit.backoff import BASE_SECONDS, CAP_SECONDS, backoff_seconds

from .plugins import Plugin
from .wire import Job, digest, encode


class Permanent(Exception):
    """Raised by a job: another attempt would fail as well."""


class WaitAndRepeat(Exception):
    """Raised by a job: nothing is wrong with it, but now is not the time. It goes back, and no attempt is counted.

    It goes back to the head of its queue and is taken again at once; `Queue.pause` first, if it should wait.
    """


@dataclass(frozen=True)
class Definition:
    """How jobs of one class are worked off.

    `perform` is called with the job's arguments and may be a coroutine function. An exception is a failed attempt.
    After `attempts` of them, or a Permanent one, the job is in the failed list; before, it is tried again after a pause
    that doubles from `base` to `cap` seconds, with jitter. Redis counts delayed jobs in whole seconds, so a pause is
    rounded up.
    """

    perform: Callable[..., Any]
    attempts: int = 5
    base_seconds: float = BASE_SECONDS
    cap_seconds: float = CAP_SECONDS
    schedule: Callable[[int], float] | None = None
    """The pause in seconds after each failed attempt (1, 2, …), in place of the doubling one."""
    time_limit: float | None = None
    """Seconds for one attempt, from its first line on; then it counts as failed. A coroutine is cancelled, a process is
    killed. A thread cannot be stopped: it goes on beside the next attempt."""
    in_process: bool = False
    """Run it in a pool of processes: for what computes and would hold up the event loop. `perform` must then be a plain
    function of a module."""
    plugins: Sequence[Plugin] = field(default=())
    unique: Callable[..., object] | None = None
    """Makes of the arguments what may wait or run only once at a time: `lambda email: email["to"]`."""
    unique_seconds: float = 3600.0
    """How long at most, should nobody ever see the end of it: a foreign program may have deleted the job."""

    @cached_property
    def is_async(self) -> bool:
        """Whether it can run on the event loop; a plain function gets a thread."""
        return inspect.iscoroutinefunction(self.perform) or inspect.iscoroutinefunction(type(self.perform).__call__)

    def pause(self, attempt: int) -> float:
        if self.schedule is not None:
            return self.schedule(attempt)
        return backoff_seconds(attempt, self.base_seconds, self.cap_seconds)

    def lock(self, job: Job) -> str | None:
        """The name of its lock if it is one of a kind that must be unique."""
        if self.unique is None:
            return None
        return digest(encode([job.queue, job.name, self.unique(*job.args)]))


Definitions = dict[str, Definition]
