"""What a job does and how it is tried: the definitions that workers and producers share.

A job's class is only a name. The worker looks it up among its definitions and never imports it, because any program
may have written to Redis.
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
    """Raised by a job that cannot run now although nothing is wrong with it. It is released, and no attempt is counted.

    It returns to the head of its queue, and a worker claims it again at once. Call `Queue.pause` first if it should
    wait.
    """


@dataclass(frozen=True)
class Definition:
    """How workers run the jobs of one class.

    `perform` is called with the job's arguments and may be a coroutine function. An exception is a failed attempt.
    After `attempts` failed attempts, or one that raised Permanent, the job moves to the failed list. A job with too few
    or too many arguments moves there at once. Until then the job is retried after a pause that doubles from
    `base_seconds` to `cap_seconds`, with jitter. Delayed jobs are due at whole seconds, so the pause is rounded up.
    """

    perform: Callable[..., Any]
    attempts: int = 5
    base_seconds: float = BASE_SECONDS
    cap_seconds: float = CAP_SECONDS
    schedule: Callable[[int], float] | None = None
    """The pause in seconds after each failed attempt (1, 2, …), instead of the doubling pause."""
    time_limit: float | None = None
    """Seconds that one attempt may run. An attempt that takes longer has failed: a coroutine is cancelled, a process is
    killed. A thread cannot be stopped: it continues while the next attempt runs."""
    in_process: bool = False
    """Run it in a pool of processes: for CPU-bound jobs, which would block the event loop. `perform` must then be a
    plain function at the top level of a module."""
    plugins: Sequence[Plugin] = field(default=())
    unique: Callable[..., object] | None = None
    """Turns the arguments into a value: of the jobs with the same value, only one may wait or run at a time. Example:
    `lambda email: email["to"]`."""
    unique_seconds: float = 3600.0
    """How long the lock lasts if no worker releases it, for example because another program deleted the job."""

    @cached_property
    def _signature(self) -> inspect.Signature | None:
        try:
            return inspect.signature(self.perform)
        except (TypeError, ValueError):  # some functions written in C have none
            return None

    def misfit(self, args: Sequence[Any]) -> str:
        """Why `perform` cannot be called with these arguments; "" if it can. Only the number of arguments matters."""
        if len(args) in self._fitting:
            return ""
        try:
            if self._signature is not None:
                self._signature.bind(*args)
        except TypeError as error:
            return str(error)
        self._fitting.add(len(args))
        return ""

    @cached_property
    def _fitting(self) -> set[int]:
        """The numbers of arguments that `misfit` has already checked, and with which `perform` can be called."""
        return set()

    @cached_property
    def is_async(self) -> bool:
        """Whether it runs on the event loop; a plain function runs in a thread."""
        return inspect.iscoroutinefunction(self.perform) or inspect.iscoroutinefunction(type(self.perform).__call__)

    def pause(self, attempt: int) -> float:
        if self.schedule is not None:
            return self.schedule(attempt)
        return backoff_seconds(attempt, self.base_seconds, self.cap_seconds)

    def lock(self, job: Job) -> str | None:
        """The name of the job's lock, or None if its class need not be unique."""
        if self.unique is None:
            return None
        return digest(encode([job.queue, job.name, self.unique(*job.args)]))

    def lock_or_none(self, job: Job) -> str | None:
        """The same, and None for a job of another program whose arguments do not fit `unique`."""
        try:
            return self.lock(job)
        except Exception:
            return None


Definitions = dict[str, Definition]
