"""Processes for Pillow: one for each picture, a few at a time, with a limit on time and memory.

A damaged or malicious picture can crash its decoder, or keep it busy for hours. Then its process is killed, and no
other picture suffers. (In a `ProcessPoolExecutor`, all jobs fail when one process dies, and none can be killed alone.)
A new process costs little: it is forked from a server that has imported Pillow already.
"""

import asyncio
import multiprocessing
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, TypeVar

T = TypeVar("T")

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["examples.pictures.versions"])
START_SECONDS = 10.0  # for the first process, which waits for the imports


class TookTooLong(Exception):
    """The process has been killed at its time limit."""


class Died(Exception):
    """The process ended without an answer: it crashed, or the system killed it."""


class Pool:
    """At most `processes` at a time, each for `seconds` and with `memory_bytes` (on Linux)."""

    def __init__(self, processes: int, seconds: float, memory_bytes: int) -> None:
        self._room = asyncio.Semaphore(processes)
        self._seconds = seconds
        self._memory = memory_bytes

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a function of a module in a process. Raises what it raises, TookTooLong, or Died."""
        async with self._room:
            ours, theirs = CONTEXT.Pipe()
            limits = (self._memory, round(self._seconds + START_SECONDS))
            process = CONTEXT.Process(target=_child, args=(theirs, limits), daemon=True)
            try:
                await asyncio.to_thread(process.start)
                theirs.close()
                async with asyncio.timeout(self._seconds):
                    result, error = await asyncio.to_thread(_ask, ours, (function, arguments))
            except TimeoutError:
                raise TookTooLong(f"it took longer than {self._seconds:g} s") from None
            except (EOFError, OSError):
                raise Died("the process that read it has crashed") from None
            finally:
                with suppress(ValueError, AttributeError):  # it was not started
                    process.kill()  # the pipe closes, and the thread that reads from it ends
        if error is not None:
            raise error
        answer: T = result
        return answer


def _ask(pipe: Connection, order: tuple[Callable[..., object], tuple[object, ...]]) -> tuple[Any, Exception | None]:
    pipe.send(order)
    answer: tuple[Any, Exception | None] = pipe.recv()
    return answer


def _child(pipe: Connection, limits: tuple[int, int]) -> None:
    memory, seconds = limits
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))  # its parent may have been killed
    with suppress(EOFError, OSError):  # then it has been killed
        function, arguments = pipe.recv()
        try:
            answer: tuple[object, Exception | None] = function(*arguments), None
        except Exception as error:
            answer = None, error
        pipe.send(answer)
