"""The figures of one queue for a page such as `/stats`, of all servers and workers together."""

from typing import Any

from .delayed import DelayedJobs
from .failed import FailedList
from .observe import Observer
from .queue import Queue
from .queues import Queues


async def figures(queue: Queue, name: str) -> dict[str, Any]:
    """The figures of the queue `name`. Delayed jobs, workers and counters are of all queues. Raises RedisError."""
    [state] = await Queues(queue.client, queue.keys, queue.scripts).states([name])
    observer, delayed = Observer(queue.client, queue.keys), DelayedJobs(queue)
    totals, (count, _) = await observer.totals(), await delayed.count()
    overdue, overdue_seconds = await delayed.overdue()
    ages = (overdue_seconds, state.oldest_seconds, await observer.oldest_elsewhere())
    return {
        "succeeded": totals["succeeded"],
        "failed": totals["failed"],
        "failed_list": await FailedList(queue.client, queue.keys, queue.scripts).count(),
        "retried": totals["retried"],
        "waiting": (state.length or 0) + count,
        "in_flight": await observer.in_flight(),
        "oldest_wait_seconds": max(age for age in ages if age is not None),
        "delayed": count,
        "next_attempt_seconds": await delayed.next_in(),
        "overdue": overdue,
        "leader": await observer.leader(),
        "crashed": totals["crashed"],
        "workers": await observer.processes(),
        "paused": state.paused or False,
    }
