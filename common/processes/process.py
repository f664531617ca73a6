"""What every process of the project does the same way: its log, its event loop, its end."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any

import uvloop

LIFELINE = "SIX_WAYS_LIFELINE"
"""Set in the environment of a child whose standard input is a pipe from its parent: its end is the parent's end."""


def run(main: Coroutine[Any, Any, None], prefix: str = "", *, until_stopped: bool = True) -> None:
    """Run a role to its end, on uvloop, with the log on standard output, each line behind the prefix.

    A role must wait for `stop_requested` somewhere, or no signal ends it; a program that ends by itself is not
    `until_stopped`.
    """
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # not shown, so not looked up
    logging.basicConfig(
        stream=sys.stdout,
        level=logging.INFO,
        format=f"{prefix}%(asctime)s.%(msecs)03d %(message)s",
        datefmt="%H:%M:%S",
    )
    gc.freeze()  # what has been imported stays: the collector need not look at it again and again
    gc.set_threshold(20_000, 20, 20)  # nor come after each 700 objects: few of ours are in cycles, and most die young
    uvloop.run(_listening(main) if until_stopped else main)


_stop: ContextVar[asyncio.Future[str]] = ContextVar("_stop")
"""Set when this process is asked to stop: by whom."""


async def stop_requested() -> str:
    """Wait until somebody wants this process to stop, and say who. Only in a process that `run` runs.

    SIGTERM from the parent, Ctrl-C in a terminal of its own, or the parent's death, however it died: then the other
    end of the lifeline closes, and nothing is left behind without a parent.
    """
    return await asyncio.shield(_stop.get())


async def _listening(main: Coroutine[Any, Any, None]) -> None:
    """Before anything is begun: a signal that comes as soon as a role says that it is ready must not find nobody."""
    loop = asyncio.get_running_loop()
    wish: asyncio.Future[str] = loop.create_future()
    _stop.set(wish)

    def request(reason: str) -> None:
        if not wish.done():
            wish.set_result(reason)

    def read_lifeline() -> None:
        if not os.read(stdin, 1):
            loop.remove_reader(stdin)
            request("the parent is gone")

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, request, number.name)
    if LIFELINE in os.environ:
        stdin = sys.stdin.fileno()
        loop.add_reader(stdin, read_lifeline)
    await main
