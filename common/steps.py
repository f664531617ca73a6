"""The steps of a chapter: small workers in its folder `steps/`, of which STEP runs one in place of the full design."""

import importlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from common.settings import Settings, exit_with_usage_error

Work = Callable[[Settings], Coroutine[Any, Any, None]]


def steps_of(package: str) -> dict[str, tuple[str, ...]]:
    """The steps of a chapter, in their order: the name of each, and the figures of `/stats` that it can know."""
    if not (Path(package) / "steps" / "__init__.py").exists():
        return {}
    steps: dict[str, tuple[str, ...]] = importlib.import_module(f"{package}.steps").STEPS
    return steps


def check_step(settings: Settings, package: str) -> str | None:
    """The step that is asked for. A bad one ends the program with one line and exit status 2."""
    steps = steps_of(package)
    if settings.step is not None and settings.step not in steps:
        known_steps = f"has the steps {', '.join(steps)}" if steps else "has no steps"
        exit_with_usage_error(f"STEP: {package} {known_steps}")
    return settings.step


def step_or(full: Work, settings: Settings, package: str) -> Work:
    """What the worker runs: the step that is asked for, else the full design."""
    if (step := check_step(settings, package)) is None:
        return full
    work: Work = importlib.import_module(f"{package}.steps.{step}").work
    return work


def known(figures: dict[str, Any], settings: Settings, package: str) -> dict[str, Any]:
    """The figures of `/stats`, with None for each that the step in use cannot know."""
    if settings.step is None:
        return figures
    names = steps_of(package)[settings.step]
    return {name: figure if name in names else None for name, figure in figures.items()}
