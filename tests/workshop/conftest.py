"""Passes to each test file its own exercises, and what their checks share."""

from collections.abc import Iterator

import pytest

from workshop.bench import Bench
from workshop.course import exercises


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "exercise" in metafunc.fixturenames:
        names: tuple[str, ...] = metafunc.module.EXERCISES
        chosen = [exercise for exercise in exercises() if exercise.name in names]
        metafunc.parametrize("exercise", chosen, ids=[exercise.name for exercise in chosen])


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench() as bench:
        yield bench
