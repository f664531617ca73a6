"""Plug-ins: code that runs before and after a job is enqueued and before and after it is performed.

Plug-ins run in the order of their list. If `before_enqueue` returns False, the job is not enqueued. If `before_perform`
returns False, the job is dropped without being performed and counts as done. The `enqueue` methods run in the producer,
the `perform` methods in the worker.
"""

from .wire import Job


class Plugin:
    """Override the methods that you need."""

    async def before_enqueue(self, job: Job) -> bool:
        return True

    async def after_enqueue(self, job: Job) -> None:
        pass

    async def before_perform(self, job: Job) -> bool:
        return True

    async def after_perform(self, job: Job, error: BaseException | None) -> None:
        """`error` is what the job raised, or None."""
