"""One limit of emails per second for all workers of a queue, each of which has an equal share.

RabbitMQ has no throttle, but it knows how many consumers a queue has. Each worker asks for that number every second. A
new worker sends nothing until the other workers have had time to ask and to reduce their shares.
"""

import asyncio
import logging
import math
import time

from common.amqp.queues import WorkQueue
from common.mail.errors import CannotAccept

LOOK_SECONDS = 1.0

log = logging.getLogger(__name__)


class SharedLimit:
    """Call `acquire` before each email, and let `keep_share` run meanwhile."""

    def __init__(self, queue: WorkQueue, per_second: float) -> None:
        self.pause: float | None = None  # seconds between two emails of this worker; None: not known yet
        self._queue = queue
        self._per_second = per_second
        self._last = -math.inf
        self._turn = asyncio.Lock()

    async def acquire(self) -> None:
        """Wait until this worker may send one more email. Callers get their turns in order."""
        async with self._turn:
            while (left := self._left()) > 0:  # noqa: ASYNC110  it is a matter of time
                await asyncio.sleep(min(left, LOOK_SECONDS))  # the share may change meanwhile
            self._last = time.monotonic()

    def _left(self) -> float:
        return LOOK_SECONDS if self.pause is None else self._last + self.pause - time.monotonic()

    async def keep_share(self) -> None:
        """Adjust the share to the number of workers, forever."""
        known = False
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            workers = await self._workers()
            if workers and known:
                self._share(workers)
            known = known or workers > 0  # the others count this worker too, at the latest when they ask next

    async def _workers(self) -> int:
        """0 if RabbitMQ does not answer; then the share stays as it is."""
        try:
            return (await self._queue.link.count(self._queue.name))[1]
        except CannotAccept:
            return 0

    def _share(self, workers: int) -> None:
        if (pause := workers / self._per_second) != self.pause:
            self.pause = pause
            text = "at most %g emails per second, as one of %d workers that share a limit of %g"
            log.info(text, 1 / pause, workers, self._per_second)
