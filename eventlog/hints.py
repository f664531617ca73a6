"""Hints: Redis announces new events by pub/sub to all processes that listen at that moment.

Pub/sub suits this because every process needs the hint. A lost hint loses no event: consumers also
look once a second.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from redis.asyncio import Redis

from asynckit.redis_client import CALL_ERRORS
from asynckit.tasks import end_tasks, keep_running

CHANNEL = "eventlog:appended"
SUBSCRIBE_AGAIN_SECONDS = 0.5

log = logging.getLogger(__name__)


class Hints:
    """`count` is the number of hints so far: remember it before you look for events, and pass it to `wait`."""

    def __init__(self, redis: Redis, rewound: Callable[[], None]) -> None:
        """`rewound` is called when the cursor of any consumer may have moved."""
        self.count = 0
        self._redis = redis
        self._rewound = rewound
        self._next = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._ended = False

    async def wait(self, seen: int, seconds: float) -> None:
        """Wait until there are more hints than `seen`, for `seconds` at most, or until `end`."""
        if self._task is None:  # subscribe at the first wait: a producer never waits
            self._task = keep_running(self._listen, f"listening on {CHANNEL}")
        if self.count == seen and not self._ended:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, seconds)):
                    await self._next.wait()

    def end(self) -> None:
        """Make every `wait` return at once."""
        self._ended = True
        self._next.set()

    async def close(self) -> None:
        self.end()
        if self._task is not None:
            await end_tasks([self._task])

    async def _listen(self) -> None:
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.subscribe(CHANNEL)
                    while True:
                        message = await pubsub.get_message(timeout=None)
                        if message is not None:
                            self._receive(message["type"], message["data"])
            except CALL_ERRORS:  # claims log that Redis is down
                pass
            except Exception:  # such as an invalid answer
                log.exception("error on %s", CHANNEL)
            await asyncio.sleep(SUBSCRIBE_AGAIN_SECONDS)

    def _receive(self, kind: str, data: object) -> None:
        if kind == "subscribe" or data == b"rewound":  # a new subscription may have missed a "rewound"
            self._rewound()
        self.count += 1
        self._next.set()
        if not self._ended:
            self._next = asyncio.Event()
