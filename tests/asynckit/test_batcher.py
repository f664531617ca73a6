"""Group commit: calls that arrive together, or during a commit, are committed together."""

import asyncio
import builtins
from collections.abc import Sequence

import pytest
from redis.exceptions import TimeoutError

from asynckit.batcher import Batcher, NotTried
from tests.support.programs import LIMIT, until


class Commits:
    """Doubles numbers; each commit waits for permission."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.permission = asyncio.Event()
        self.permission.set()
        self.error: Exception | None = None

    async def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        await self.permission.wait()
        if self.error:
            raise self.error
        return [2 * number for number in numbers]


async def test_the_calls_of_one_tick_are_one_commit_with_a_result_for_each() -> None:
    commits = Commits()
    double = Batcher(commits)
    assert await asyncio.gather(*[double(n) for n in range(5)]) == [0, 2, 4, 6, 8]
    assert commits.batches == [[0, 1, 2, 3, 4]]


async def test_calls_during_a_commit_wait_for_the_next_commits() -> None:
    commits = Commits()
    double = Batcher(commits)
    commits.permission.clear()
    first = [double(n) for n in (1, 2, 3)]
    await until(lambda: commits.batches)
    later = [double(n) for n in (4, 5, 6)]
    await asyncio.sleep(0)
    assert commits.batches == [[1, 2, 3]], "one commit at a time"
    commits.permission.set()
    assert await asyncio.gather(*first, *later) == [2, 4, 6, 8, 10, 12]
    assert commits.batches == [[1, 2, 3], [4, 5, 6]]


async def test_callers_that_wait_for_a_result_before_their_next_call_are_in_equal_batches() -> None:
    sizes: list[int] = []
    permission = asyncio.Event()

    async def commit(numbers: Sequence[int]) -> Sequence[int]:
        sizes.append(len(numbers))
        await permission.wait()
        for _ in range(5):  # ticks in which the callers of the previous batch call again
            await asyncio.sleep(0)
        return numbers

    async def call_four_times(double: Batcher[int, int]) -> None:
        for n in range(4):
            await double(n)

    double = Batcher(commit)
    async with asyncio.TaskGroup() as callers:
        for _ in range(2):
            callers.create_task(call_four_times(double))
        await until(lambda: sizes)
        for _ in range(8):
            callers.create_task(call_four_times(double))
        await asyncio.sleep(0)
        permission.set()
    assert sizes == [2, 5, 5, 5, 5, 5, 5, 5, 3]


async def test_calls_are_in_one_of_the_next_two_batches() -> None:
    commits = Commits()
    double = Batcher(commits)
    commits.permission.clear()
    calls = [double(1)]
    await until(lambda: commits.batches)
    calls += [double(n) for n in range(2, 11)]
    commits.permission.set()
    await asyncio.gather(*calls)
    assert commits.batches == [[1], [2, 3, 4, 5, 6], [7, 8, 9, 10]]


async def test_a_single_call_does_not_wait_for_others() -> None:
    commits = Commits()
    double = Batcher(commits)
    assert [await double(1), await double(2)] == [2, 4]
    assert commits.batches == [[1], [2]]


async def test_a_batch_that_is_not_large_enough_waits_for_more_calls() -> None:
    commits = Commits()
    double = Batcher(commits, is_enough=lambda number: number >= 3, gather_seconds=LIMIT)
    first = [double(n) for n in (1, 2)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert commits.batches == []
    assert await asyncio.gather(*first, double(3)) == [2, 4, 6]
    assert commits.batches == [[1, 2, 3]]


async def test_a_batch_waits_for_more_calls_only_for_a_limited_time() -> None:
    commits = Commits()
    double = Batcher(commits, is_enough=lambda number: number >= 3, gather_seconds=0.001)
    assert [await double(1), await double(2)] == [2, 4]
    assert commits.batches == [[1], [2]]


async def test_a_batch_has_a_largest_size() -> None:
    commits = Commits()
    double = Batcher(commits, largest=2)
    assert await asyncio.gather(*[double(n) for n in range(5)]) == [0, 2, 4, 6, 8]
    assert commits.batches == [[0, 1], [2, 3], [4]]


async def test_an_error_fails_its_whole_batch_and_no_later_batch() -> None:
    commits = Commits()
    double = Batcher(commits)
    commits.error = RuntimeError("down")
    results = await asyncio.gather(*[double(n) for n in range(3)], return_exceptions=True)
    assert [str(r) for r in results] == ["down"] * 3
    commits.error = None
    assert await double(4) == 8


async def test_a_commit_that_times_out_fails_the_calls_that_wait_for_the_next_one() -> None:
    """Otherwise each commit would take as long, and the number of waiting calls would have no limit."""
    commits = Commits()
    double = Batcher(commits, largest=2)
    commits.permission.clear()
    commits.error = TimeoutError("no answer")
    calls = [double(n) for n in range(7)]
    await until(lambda: commits.batches)
    calls[6].cancel()
    commits.permission.set()
    results = await asyncio.gather(*calls[:6], return_exceptions=True)
    assert [str(r) for r in results[:2]] == ["no answer"] * 2
    assert [type(r) for r in results[2:]] == [NotTried] * 4
    assert commits.batches == [[0, 1]]
    commits.error = None
    assert await double(8) == 16


async def test_a_cancelled_caller_does_not_cancel_the_others() -> None:
    commits = Commits()
    double = Batcher(commits)
    commits.permission.clear()
    leaving, staying = double(1), double(2)
    await until(lambda: commits.batches)
    leaving.cancel()
    commits.permission.set()
    assert await staying == 4
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_a_timeout_of_python_fails_the_waiting_calls_too() -> None:
    """As in strategy 3, whose commit waits for an answer over a pipe."""
    commits = Commits()
    double = Batcher(commits, largest=1)
    commits.permission.clear()
    commits.error = builtins.TimeoutError("no answer")
    calls = [double(n) for n in range(3)]
    await until(lambda: commits.batches)
    commits.permission.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(r) for r in results] == [builtins.TimeoutError, NotTried, NotTried]
    assert commits.batches == [[0]]


async def test_a_wrong_number_of_results_leaves_no_caller_waiting() -> None:
    async def too_few(numbers: Sequence[int]) -> list[int]:
        return list(numbers[1:])

    double: Batcher[int, int] = Batcher(too_few, largest=2)
    async with asyncio.timeout(LIMIT):
        results = await asyncio.gather(*[double(n) for n in range(3)], return_exceptions=True)
    assert [str(r) for r in results] == ["1 results for 2 items"] * 2 + ["0 results for 1 items"]


async def test_cancelling_the_commit_leaves_no_caller_waiting() -> None:
    commits = Commits()
    double = Batcher(commits, largest=1)
    commits.permission.clear()
    calls = [double(n) for n in range(3)]
    await until(lambda: commits.batches)
    assert double._task is not None
    double._task.cancel()
    async with asyncio.timeout(LIMIT):
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
