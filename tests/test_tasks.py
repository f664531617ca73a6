"""Background tasks end when they are told to."""

import asyncio
from contextlib import suppress

from common.tasks import end_tasks


async def hard_of_hearing() -> None:
    """Wait for ever, and swallow the first cancellation, as `asyncio.wait_for` may before Python 3.12."""
    with suppress(asyncio.CancelledError):
        await asyncio.Event().wait()
    await asyncio.Event().wait()


async def test_a_task_that_swallows_a_cancellation_is_told_again() -> None:
    task = asyncio.create_task(hard_of_hearing())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done(), "once is not enough"
    await end_tasks([task], again_seconds=0.01)
    assert task.cancelled()


async def test_those_that_have_ended_or_fail_are_no_matter() -> None:
    async def fail() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("on the way out")

    done, failing = asyncio.create_task(asyncio.sleep(0)), asyncio.create_task(fail())
    await done
    await end_tasks([done, failing])
    assert isinstance(failing.exception(), ValueError)
