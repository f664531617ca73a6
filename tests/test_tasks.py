"""Background tasks end when they are told to."""

import asyncio

from common.tasks import end_tasks


async def test_a_task_that_swallows_a_cancellation_is_told_again() -> None:
    heard = []

    async def hard_of_hearing() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                heard.append("once more")
                if len(heard) == 3:
                    raise

    task = asyncio.create_task(hard_of_hearing())
    await asyncio.sleep(0)
    await end_tasks([task], again_seconds=0.01)
    assert task.cancelled()
    assert len(heard) == 3


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
