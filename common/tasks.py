"""Ending background tasks so that they have ended."""

import asyncio
from collections.abc import Iterable
from typing import Any

AGAIN_SECONDS = 0.1


async def end_tasks(tasks: Iterable[asyncio.Task[Any]], again_seconds: float = AGAIN_SECONDS) -> None:
    """Cancel them and wait until all have ended, however they do.

    Once is not enough: before Python 3.12, `asyncio.wait_for` swallows a cancellation that comes as its work is done
    (https://github.com/python/cpython/issues/86296), and redis-py sends each command through it. So it is said again.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=again_seconds)
