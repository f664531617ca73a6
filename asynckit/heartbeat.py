"""A heartbeat: a sign of life at a steady pace, from a thread of its own.

A lease that is kept alive by the event loop ends as soon as a job computes for longer than it lasts, and somebody else
begins that job a second time. A thread goes on beating meanwhile. But a thread would also vouch for a loop that hangs
for ever; so it looks at the loop, and falls silent when that has not moved for HUNG_SECONDS.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Self

from redis.exceptions import RedisError

from asynckit.log_limit import REDIS, OncePerSecond
from asynckit.redis_client import describe
from asynckit.tasks import end_tasks, keep_running

HUNG_SECONDS = 300.0
RETRY_SECONDS = 0.25  # after a beat that did not get through: Redis may be back long before the lease ends
LOOK_SECONDS = 1.0

log = logging.getLogger(__name__)


class Heartbeat:
    """Calls `beat` every `seconds` in a thread, for as long as the block runs.

    `beat` must not block for longer than a fraction of the lease. A RedisError is logged and the beat repeated soon;
    nothing ends the thread but the end of the block.
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
        self._looking = keep_running(self._look, "watching the event loop")
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await end_tasks([self._looking])
        await asyncio.to_thread(self._thread.join)

    async def _look(self) -> None:
        while True:
            self._moved = time.monotonic()
            await asyncio.sleep(LOOK_SECONDS)

    def _run(self) -> None:
        pause = self._seconds
        while not self._stop.wait(pause):
            pause = self._seconds
            if time.monotonic() - self._moved > self._hung_seconds:
                self._hung_log.warning("no heartbeat: the event loop has not moved for %g s", self._hung_seconds)
                continue
            try:
                self._beat()
            except RedisError as error:
                pause = min(RETRY_SECONDS, self._seconds)
                self._redis_log.warning("no heartbeat: %s", describe(error))
            except Exception:  # a bug here must not end in a lease that silently runs out
                log.exception("error in the heartbeat")
