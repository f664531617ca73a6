"""A task that is hard to cancel."""

import asyncio
from contextlib import suppress


async def ignore_first_cancellation() -> None:
    """Wait forever, and swallow the first cancellation, as `asyncio.wait_for` may before Python 3.12."""
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await asyncio.Event().wait()
