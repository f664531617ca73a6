"""Whatever the code of a handler does, it fails only its own attempt."""

import asyncio
import logging
import sys
from typing import Any, NoReturn

import pytest

from asynckit.isolation import isolating_task
from tests.support.listeners import BatchListener, Listener, all_done, append, consuming

ENGINES = ["lua"]


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no")


async def exits_in_a_task() -> None:
    async def leaves() -> NoReturn:
        sys.exit(3)

    await asyncio.gather(leaves())


RAISED: dict[str, BaseException] = {
    "SystemExit: 2": SystemExit(2),
    "KeyboardInterrupt": KeyboardInterrupt(),
    "GeneratorExit": GeneratorExit(),
    "CancelledError": asyncio.CancelledError(),
    "Unprintable: (the error cannot be shown: its __str__ fails)": Unprintable(),
    "ValueError: the file ?": ValueError("the file \udcff"),
}


@pytest.mark.parametrize("kind", [Listener, BatchListener])
async def test_an_error_of_any_kind_fails_only_that_event(
    log: Any, kind: type[Listener], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "eventlog.consumers")  # pytest cannot report the surrogate in a traceback
    errors = list(RAISED.values())

    def act(number: int) -> object:
        if number < len(errors):
            raise errors[number]
        return exits_in_a_task() if number == len(errors) else None

    asyncio.get_running_loop().set_task_factory(isolating_task)  # as the worker does
    count = len(errors) + 1
    await append(log, *range(count + 3))
    async with consuming(log, kind(act), attempts=2):
        await all_done(log, 3, parked=count)
    assert {parked.reason for parked in await log.parked("listener")} == {*RAISED, "Exited: SystemExit 3"}
