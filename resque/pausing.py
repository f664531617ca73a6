"""Keeps a queue paused for as long as a worker cannot run its jobs."""

import asyncio
from contextlib import suppress
from functools import partial

from asynckit.redis_client import CALL_ERRORS
from asynckit.tasks import end_tasks, keep_running

from .queue import Queue

PAUSE_SECONDS = 5.0  # the pause expires after this time if this worker dies


class KeptPause:
    """A pause of one queue, for all workers. It does not end a pause that an operator has set."""

    def __init__(self, queue: Queue, name: str) -> None:
        self._queue = queue
        self._name = name
        self._over = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def begin(self, reason: str) -> None:
        """Pause the queue until `end`. A second call changes nothing."""
        self._over.clear()
        if self._task is None:
            self._task = keep_running(partial(self._keep, reason), f"keeping {self._name} paused")

    def end(self) -> None:
        """Resume the queue."""
        self._over.set()

    async def _keep(self, reason: str) -> None:
        while not self._over.is_set():
            with suppress(*CALL_ERRORS):
                await self._queue.pause(self._name, reason, PAUSE_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(PAUSE_SECONDS / 2):
                    await self._over.wait()
        self._task = None
        with suppress(*CALL_ERRORS):
            await self._queue.resume(self._name, only_timed=True)

    async def close(self) -> None:
        """Stop without resuming: another worker may still need the pause."""
        if self._task is not None:
            await end_tasks([self._task])
