"""Hints: a listener can be stopped."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from eventlog import hints
from tests.support.programs import LIMIT, until
from tests.support.tasks import ignore_first_cancellation


class Redis:
    """A Redis without messages that swallows a cancellation, as `asyncio.wait_for` may before Python 3.12."""

    listening = False

    @asynccontextmanager
    async def pubsub(self) -> AsyncIterator[Any]:
        yield self

    async def subscribe(self, channel: str) -> None:
        self.listening = True

    async def get_message(self, **_: object) -> None:
        await ignore_first_cancellation()


async def test_close_returns_even_if_a_cancellation_is_swallowed() -> None:
    redis = Redis()
    listening = hints.Hints(cast(Any, redis), lambda: None)
    await listening.wait(0, 0.0)
    await until(lambda: redis.listening)
    async with asyncio.timeout(LIMIT):
        await listening.close()
