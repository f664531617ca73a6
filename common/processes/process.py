"""What all processes of the project have in common: the log, the event loop, and how they are stopped."""

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

from common.processes.log_format import PrintableFormatter

LIFELINE = "SIX_WAYS_LIFELINE"
"""Set in the environment of a child whose standard input is a pipe from its parent. It closes when the parent ends."""


def run(main: Coroutine[Any, Any, None], prefix: str = "", *, until_stopped: bool = True) -> None:
    """Run a role on uvloop until it ends, with the log on standard output, and the prefix before each line.

    The role must wait for `stop_requested`, because signals have no other effect. Pass `until_stopped=False` for a
    program that ends by itself; then signals work as usual.
    """
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # not shown, so not looked up
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(PrintableFormatter(f"{prefix}%(asctime)s.%(msecs)03d %(message)s", "%H:%M:%S"))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    gc.freeze()  # imported modules are never freed, so the garbage collector need not check them again and again
    gc.set_threshold(20_000, 20, 20)  # instead of 700 objects: few of ours are in cycles, and most live only briefly
    uvloop.run(_listening(main) if until_stopped else main)


_stop: ContextVar[asyncio.Future[str]] = ContextVar("_stop")
"""Done when this process is told to stop, with the reason."""


async def stop_requested() -> str:
    """Wait until this process is told to stop, and return the reason. Only in a process that `run` runs.

    The reasons: SIGTERM from the parent, Ctrl-C in the terminal, or the end of the parent. Even when the parent is
    killed, its end of the lifeline closes, so no process stays behind without a parent.
    """
    return await asyncio.shield(_stop.get())


async def _listening(main: Coroutine[Any, Any, None]) -> None:
    """Handle the signals, then run `main`: a signal may come as soon as a role has logged that it is ready."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[str] = loop.create_future()
    _stop.set(stop)

    def request(reason: str) -> None:
        if not stop.done():
            stop.set_result(reason)

    def read_lifeline() -> None:
        if not os.read(stdin, 1):
            loop.remove_reader(stdin)
            request("the parent has ended")

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, request, number.name)
    if LIFELINE in os.environ:
        stdin = sys.stdin.fileno()
        loop.add_reader(stdin, read_lifeline)
    await main
