"""Every starting point fails for the stated reason, every solution passes, and wrong solutions are refused.

ROUNDS=3 checks each solution three times, each time with faults at other moments.
"""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from workshop.bench import Bench
from workshop.course import HINTS, Exercise, Variant, exercises
from workshop.trial import Failed, Trial

ROUNDS = int(os.environ.get("ROUNDS", "1"))
EXERCISES = [pytest.param(exercise, id=exercise.name) for exercise in exercises()]
AT_A_TIME = 4  # wrong solutions
PASSES = "it passes"


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench() as bench:
        yield bench


async def check(exercise: Exercise, folder: Path, bench: Bench, seed: int = 2016) -> str:
    async with Trial(folder, bench, seed) as trial:
        seen: str = await exercise.module.check(trial)
        return seen


@pytest.mark.parametrize("exercise", EXERCISES)
async def test_the_starting_point_fails_for_the_stated_reason(exercise: Exercise, bench: Bench, tmp_path: Path) -> None:
    exercise.copy_to(tmp_path)
    with pytest.raises(Failed) as failed:
        await check(exercise, tmp_path, bench)
    assert exercise.fails in str(failed.value)
    assert failed.value.look


@pytest.mark.parametrize("number", range(ROUNDS))
@pytest.mark.parametrize("exercise", EXERCISES)
async def test_the_solution_passes(exercise: Exercise, number: int, bench: Bench, tmp_path: Path) -> None:
    exercise.solve_in(tmp_path)
    assert await check(exercise, tmp_path, bench, 2016 + number)


async def what_is_said_of(variants: list[Variant], bench: Bench, tmp_path: Path) -> dict[Variant, str]:
    """What the check says of each; it begins with PASSES if it passes. Several at a time, because a check mostly waits."""
    places = asyncio.Semaphore(AT_A_TIME)

    async def said_of(variant: Variant) -> str:
        folder = tmp_path / variant.path.stem
        variant.exercise.solve_in(folder)
        variant.write_to(folder)
        async with places:
            try:
                return f"{PASSES}: {await check(variant.exercise, folder, bench)}"
            except Failed as failed:
                return str(failed)

    return dict(zip(variants, await asyncio.gather(*map(said_of, variants)), strict=True))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("exercise", EXERCISES)
async def test_wrong_solutions_are_refused(exercise: Exercise, bench: Bench, tmp_path: Path) -> None:
    said = await what_is_said_of(exercise.variants("wrong"), bench, tmp_path)
    mistaken = [f"{wrong.path.stem}: {text}" for wrong, text in said.items() if wrong.refused not in text]
    assert said
    assert not mistaken, "\n\n".join(mistaken)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("exercise", [pytest.param(one, id=one.name) for one in exercises() if one.variants("right")])
async def test_other_right_solutions_pass(exercise: Exercise, bench: Bench, tmp_path: Path) -> None:
    said = await what_is_said_of(exercise.variants("right"), bench, tmp_path)
    refused = [f"{right.path.stem}: {text}" for right, text in said.items() if not text.startswith(PASSES)]
    assert not refused, "\n\n".join(refused)


@pytest.mark.parametrize("exercise", EXERCISES)
def test_an_exercise_is_complete(exercise: Exercise) -> None:
    assert exercise.text.startswith(f"# {exercise.title}\n")
    assert 5 <= exercise.minutes <= 12
    assert all(exercise.hint(number) for number in range(1, HINTS + 1))
    assert "```" not in exercise.hint(HINTS), "the last hint is not the code"
    assert bool(exercise.question) == bool(exercise.unit)
    given = {path.name for path in exercise.start.iterdir()}
    assert {path.name for path in exercise.solution.iterdir()} <= given
