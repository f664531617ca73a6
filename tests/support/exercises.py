"""What is true of each exercise of the workshop. The files in tests/workshop run it for some of the exercises each.

ROUNDS=3 checks each solution three times, each time with faults at other moments. VARIANTS=all tries all variants of
the solutions; by default it is every second one, because each takes half a second of CPU time.
"""

import asyncio
import os
from pathlib import Path

import pytest

from workshop.bench import Bench
from workshop.course import HINTS, Exercise, Variant
from workshop.program import Failed
from workshop.trial import Trial

ROUNDS = int(os.environ.get("ROUNDS", "1"))
EVERY = 1 if os.environ.get("VARIANTS") == "all" else 2
SEED = 2016
AT_A_TIME = 4  # variants of a solution
PASSES = "it passes"


class ExerciseTests:
    """tests/workshop/conftest.py passes each of the exercises that the test file names in EXERCISES."""

    async def test_the_starting_point_fails_for_the_stated_reason(
        self, exercise: Exercise, bench: Bench, tmp_path: Path
    ) -> None:
        exercise.copy_to(tmp_path)
        with pytest.raises(Failed) as failed:
            await check(exercise, tmp_path, bench)
        assert exercise.fails in str(failed.value)
        assert failed.value.look

    @pytest.mark.timeout(60 * ROUNDS)
    async def test_the_solution_passes(self, exercise: Exercise, bench: Bench, tmp_path: Path) -> None:
        exercise.solve_in(tmp_path)
        for number in range(ROUNDS):
            assert await check(exercise, tmp_path, bench, SEED + number)

    @pytest.mark.timeout(480)  # twenty variants, on a busy machine
    async def test_wrong_solutions_are_refused(self, exercise: Exercise, bench: Bench, tmp_path: Path) -> None:
        said = await what_is_said_of(exercise.variants("wrong")[::EVERY], bench, tmp_path)
        mistaken = [f"{wrong.path.stem}: {text}" for wrong, text in said.items() if wrong.refused not in text]
        assert said
        assert not mistaken, "\n\n".join(mistaken)

    @pytest.mark.timeout(480)  # twenty variants, on a busy machine
    async def test_other_right_solutions_pass(self, exercise: Exercise, bench: Bench, tmp_path: Path) -> None:
        said = await what_is_said_of(exercise.variants("right")[::EVERY], bench, tmp_path)
        refused = [f"{right.path.stem}: {text}" for right, text in said.items() if not text.startswith(PASSES)]
        assert not refused, "\n\n".join(refused)

    def test_an_exercise_is_complete(self, exercise: Exercise) -> None:
        assert exercise.text.startswith(f"# {exercise.title}\n")
        assert 5 <= exercise.minutes <= 12
        assert all(exercise.hint(number) for number in range(1, HINTS + 1))
        assert "```" not in exercise.hint(HINTS), "the last hint is not the code"
        assert bool(exercise.question) == bool(exercise.unit)
        given = {path.name for path in exercise.start.iterdir() if path.is_file()}
        assert {path.name for path in exercise.solution.iterdir() if path.is_file()} <= given


async def check(exercise: Exercise, folder: Path, bench: Bench, seed: int = SEED) -> str:
    async with Trial(folder, bench, seed) as trial:
        seen: str = await exercise.module.check(trial)
        return seen


async def what_is_said_of(variants: list[Variant], bench: Bench, tmp_path: Path) -> dict[Variant, str]:
    """What the check says of each, or PASSES. Several run at a time, because a check mostly waits."""
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
