"""Background tasks end when they are cancelled, and their errors are logged."""

import asyncio
import logging

import pytest

from asynckit.tasks import background, end_tasks, keep_running, run_together
from tests.support.programs import until
from tests.support.tasks import ignore_first_cancellation


async def test_a_task_that_swallows_a_cancellation_is_cancelled_again() -> None:
    task = asyncio.create_task(ignore_first_cancellation())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done(), "once is not enough"
    await end_tasks([task], again_seconds=0.01)
    assert task.cancelled()


async def test_end_tasks_accepts_tasks_that_have_ended_or_fail() -> None:
    async def fail() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("on the way out")

    done, failing = asyncio.create_task(asyncio.sleep(0)), asyncio.create_task(fail())
    await done
    await end_tasks([done, failing])
    assert isinstance(failing.exception(), ValueError)


async def test_keep_running_restarts_a_task_after_an_error_and_logs_the_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runs = []

    async def work() -> None:
        runs.append(1)
        if len(runs) < 3:
            raise RuntimeError("the handler is closed")
        await asyncio.Event().wait()

    task = keep_running(work, "waiting for jobs", restart_seconds=0.01)
    await until(lambda: len(runs) == 3)
    assert not task.done()
    assert caplog.text.count("waiting for jobs") == 2
    assert "RuntimeError: the handler is closed" in caplog.text
    await end_tasks([task])
    assert task.cancelled()


async def test_keep_running_ends_when_the_task_returns(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        pass

    await keep_running(work, "one look")
    assert caplog.text == ""


async def test_the_error_of_a_referenced_task_is_logged_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail() -> None:
        raise ValueError("a bug")

    task = background(fail(), "telling the counts")
    with caplog.at_level(logging.ERROR):
        await until(task.done)
        await asyncio.sleep(0)
    assert "telling the counts" in caplog.text
    assert "ValueError: a bug" in caplog.text
    cancelled = background(asyncio.Event().wait(), "waiting")
    await end_tasks([cancelled])
    assert "waiting" not in caplog.text


async def test_of_tasks_that_run_together_the_first_error_is_raised_and_the_others_end() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("work")

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("the connection is lost")

    with pytest.raises(ValueError, match="the connection is lost"):
        await run_together(work(), fail())
    assert ended == ["work"]
