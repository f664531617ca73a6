"""A heartbeat at a steady pace, from its own thread.

If the event loop renewed the lease, the lease would end whenever a job computes for longer than the lease lasts, and
another worker would run that job a second time. A thread keeps beating meanwhile. But a thread would also keep beating
if the loop hangs forever, so it stops when the loop has made no progress for HUNG_SECONDS.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Self

from asynckit.log_limit import REDIS, OncePerSecond
from asynckit.redis_client import CALL_ERRORS, describe
from asynckit.tasks import end_tasks, keep_running

HUNG_SECONDS = 300.0
RETRY_SECONDS = 0.25  # after a failed beat: Redis may be reachable again long before the lease ends
WATCH_SECONDS = 1.0

log = logging.getLogger(__name__)


class Heartbeat:
    """Calls `beat` every `seconds` in a thread, for as long as the block runs.

    `beat` must not block for longer than a fraction of the lease. A RedisError is logged, and the beat is repeated
    soon. The thread runs until the block ends.
    """

    def __init__(self, beat: Callable[[], object], seconds: float, hung_seconds: float = HUNG_SECONDS) -> None:
        self._beat = beat
        self._seconds = seconds
        self._hung_seconds = hung_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._moved = time.monotonic()
        self._hung_log = OncePerSecond(log)
        self._redis_log = OncePerSecond(log, REDIS)

    async def __aenter__(self) -> Self:
        self._watching = keep_running(self._watch, "watching the event loop")
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await end_tasks([self._watching])
        await asyncio.to_thread(self._thread.join)

    async def _watch(self) -> None:
        while True:
            self._moved = time.monotonic()
            await asyncio.sleep(WATCH_SECONDS)

    def _run(self) -> None:
        pause = self._seconds
        while not self._stop.wait(pause):
            pause = self._seconds
            if time.monotonic() - self._moved > self._hung_seconds:
                self._hung_log.warning("no heartbeat: the event loop has made no progress for %g s", self._hung_seconds)
                continue
            try:
                self._beat()
            except CALL_ERRORS as error:
                pause = min(RETRY_SECONDS, self._seconds)
                self._redis_log.warning("no heartbeat: %s", describe(error))
            except Exception:  # a bug here must not silently end the lease
                log.exception("error in the heartbeat")
