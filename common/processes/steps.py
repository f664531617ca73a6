"""The steps of a chapter: small programs in its folder `steps/`. STEP runs one of them in place of the full design."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from asynckit.log_limit import REDIS, OncePerSecond
from asynckit.redis_client import describe
from asynckit.tasks import end_tasks
from common.processes.chapter import chapter_module
from common.processes.process import stop_requested
from common.processes.role import Role
from common.settings import Settings, exit_with_usage_error

SLOTS = 10
POLL_SECONDS = 0.1  # how often a slot without work checks for it; the full designs are notified instead
REDIS_SECONDS = 1.0  # between two attempts to reach Redis

log = logging.getLogger(__name__)
redis_log = OncePerSecond(log, REDIS)


def steps_of(package: str) -> dict[str, tuple[str, ...]]:
    """The steps of a chapter in order: the name of each step, and the figures of `/stats` that it can know."""
    if not (Path(package) / "steps" / "__init__.py").exists():
        return {}
    steps: dict[str, tuple[str, ...]] = chapter_module(f"{package}.steps").STEPS
    return steps


def check_step(settings: Settings, package: str) -> str | None:
    """Return the step that STEP names, or None. An unknown one ends the program with one line and exit status 2."""
    steps = steps_of(package)
    if settings.step is not None and settings.step not in steps:
        known_steps = f"has the steps {', '.join(steps)}" if steps else "has no steps"
        exit_with_usage_error(f"STEP: {package} {known_steps}")
    return settings.step


def step_or(full: Role, package: str) -> Role:
    """The worker: it runs the step that STEP names, or else the full design."""

    async def work(settings: Settings) -> None:
        step = check_step(settings, package)
        await (full if step is None else chapter_module(f"{package}.steps.{step}").work)(settings)

    return work


def known(figures: dict[str, Any], settings: Settings, package: str) -> dict[str, Any]:
    """The figures of `/stats`, with None for each one that the step in use cannot know."""
    if settings.step is None:
        return figures
    names = steps_of(package)[settings.step]
    return {name: figure if name in names else None for name, figure in figures.items()}


async def run_slots(settings: Settings, work_one: Callable[[int], Awaitable[bool]], slots: int = SLOTS) -> None:
    """Call `work_one(slot)` repeatedly in every slot until the process is stopped. It returns False if it has no work.

    After SIGTERM the slots take no new job and have DRAIN_SECONDS to finish the current one.
    """
    stop = asyncio.Event()
    log.info("ready, as the step %s", settings.step)
    running = [asyncio.create_task(_run_slot(number, work_one, stop)) for number in range(slots)]
    stopping = asyncio.create_task(stop_requested())
    await asyncio.wait([stopping, *running], return_when=asyncio.FIRST_COMPLETED)  # a slot ends early only on an error
    log.info("stopping")
    stop.set()
    ended, _ = await asyncio.wait(running, timeout=settings.drain_seconds)
    await end_tasks([stopping, *running])
    for slot in ended:
        slot.result()  # raises the slot's error, if any: the process ends, and the runner starts it again


async def _run_slot(number: int, work_one: Callable[[int], Awaitable[bool]], stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            pause = 0.0 if await work_one(number) else POLL_SECONDS
        except (RedisError, OSError) as error:
            redis_log.warning("%s", describe(error))
            pause = REDIS_SECONDS
        if pause and not stop.is_set():
            await asyncio.sleep(pause)
