"""Hints: Redis says by pub/sub that there is something new, to all who listen at that moment.

For that, pub/sub is right, as strategy 4 has shown: what it says is for everybody. When a hint is lost, nothing is: all
look once a second anyway.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from redis.asyncio import Redis
from redis.exceptions import RedisError

from asynckit.tasks import end_tasks, keep_running

CHANNEL = "eventlog:appended"
SUBSCRIBE_AGAIN_SECONDS = 0.5

log = logging.getLogger(__name__)


class Hints:
    """`count` says how many have come: who has looked since the last one can wait for the next."""

    def __init__(self, redis: Redis, rewound: Callable[[], None]) -> None:
        """`rewound` is called when some consumer's place may have changed."""
        self.count = 0
        self._redis = redis
        self._rewound = rewound
        self._next = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._ended = False

    async def wait(self, seen: int, seconds: float) -> None:
        """Until there are more than those `seen`, or so many seconds, or the end."""
        if self._task is None:  # who never waits need not listen
            self._task = keep_running(self._listen, f"listening on {CHANNEL}")
        if self.count == seen and not self._ended:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, seconds)):
                    await self._next.wait()

    def end(self) -> None:
        """Nobody waits any more."""
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
                            self._take(message["type"], message["data"])
            except RedisError:  # those who claim say so in the log
                pass
            except Exception:  # an answer that is none
                log.exception("error on %s", CHANNEL)
            await asyncio.sleep(SUBSCRIBE_AGAIN_SECONDS)

    def _take(self, kind: str, data: object) -> None:
        if kind == "subscribe" or data == b"rewound":  # or one that was missed meanwhile
            self._rewound()
        self.count += 1
        self._next.set()
        if not self._ended:
            self._next = asyncio.Event()
