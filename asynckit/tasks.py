"""Background tasks whose errors are always logged, and how to stop them.

Use `keep_running` for a task that must not end, such as one that waits for jobs, and `background` for one that ends by
itself. asyncio reports the error of a task that is never awaited only when the task is garbage-collected, and a task to
which an attribute refers is not collected: without these two functions, its error would not be logged.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeVar

CANCEL_AGAIN_SECONDS = 0.1
RESTART_SECONDS = 1.0

T = TypeVar("T")

log = logging.getLogger(__name__)


def background(work: Coroutine[Any, Any, T], what: str) -> asyncio.Task[T]:
    """Start a task whose error is logged as soon as it is raised. Keep the reference; `what` names it in the log."""

    def report(task: asyncio.Task[T]) -> None:
        if not task.cancelled() and (error := task.exception()):
            log.error("error in a background task: %s", what, exc_info=error)

    task = asyncio.create_task(work, name=what)
    task.add_done_callback(report)
    return task


def keep_running(
    work: Callable[[], Coroutine[Any, Any, None]], what: str, restart_seconds: float = RESTART_SECONDS
) -> asyncio.Task[None]:
    """Start a task that runs until it is cancelled or returns. When `work` raises, log that and call it again later."""

    async def restart() -> None:
        while True:
            try:
                return await work()
            except Exception:
                log.exception("error in a background task: %s; restarting it in %g s", what, restart_seconds)
                await asyncio.sleep(restart_seconds)

    return background(restart(), what)


async def run_together(*works: Coroutine[Any, Any, object]) -> None:
    """Run all of them until the first one ends, then cancel the others. Raises the error of the first one."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await end_tasks(tasks)


async def end_tasks(tasks: Iterable[asyncio.Task[Any]], again_seconds: float = CANCEL_AGAIN_SECONDS) -> None:
    """Cancel the tasks and wait until all have ended, with a result or an error.

    One cancellation is not enough: before Python 3.12, `asyncio.wait_for` swallows a cancellation that comes as its
    work is done (https://github.com/python/cpython/issues/86296), and redis-py sends each command through it. So cancel
    repeatedly.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=again_seconds)
