"""Code around jobs: before and after they are enqueued, before and after they are performed.

Plug-ins run in the order of their list. A `before` that says False ends it: the job is not enqueued, or is dropped
without being performed, and counts as done. `after_enqueue` runs where the job was enqueued, the `perform` ones in the
worker.
"""

from .wire import Job


class Plugin:
    """Override what you need."""

    async def before_enqueue(self, job: Job) -> bool:
        return True

    async def after_enqueue(self, job: Job) -> None:
        pass

    async def before_perform(self, job: Job) -> bool:
        return True

    async def after_perform(self, job: Job, error: BaseException | None) -> None:
        """`error` is what the job raised, or None."""
