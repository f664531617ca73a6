"""Processes for CPU-bound jobs: they do not block the event loop, and they use every core.

Each process runs one job at a time, so a process that dies or must be killed fails only the attempt of its own job.
(With `ProcessPoolExecutor`, every job in the pool would fail.) What a job raises crosses the pipe as strings.
"""

import asyncio
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from asynckit.isolation import end_forked_child

from .isolation import Threads
from .reports import RaisedInProcess, Report, report_of

JOIN_SECONDS = 5.0


class ProcessDied(Exception):
    """The process that ran the job has ended: it crashed, called `os._exit`, or was killed by the system."""


class ProcessPool:
    """At most `processes`, by default one for each core, started when needed. They end with their parent."""

    def __init__(self, threads: Threads, processes: int | None = None) -> None:
        self._threads = threads
        self._room = asyncio.Semaphore(processes or os.cpu_count() or 1)
        self._idle: list[_Process] = []

    async def call(self, perform: Callable[..., Any], args: Sequence[Any], limit: float | None = None) -> Any:
        """Run `perform(*args)` in a process. After `limit` seconds, counted from when the process is ready, it is
        killed.

        Raises TimeoutError, ProcessDied, or RaisedInProcess with a report of what the job raised.
        """
        order = pickle.dumps((perform, list(args)))
        async with self._room:
            process = await self._ready()
            try:
                answer = await self._threads.call(process.ask, [order], limit)
            except (TimeoutError, asyncio.CancelledError, ProcessDied):
                process.kill()
                raise
            self._idle.append(process)
        result, report = pickle.loads(answer)  # noqa: S301  from a process of our own
        if report is not None:
            raise RaisedInProcess(report)
        return result

    def close(self) -> None:
        while self._idle:
            self._idle.pop().kill()

    async def _ready(self) -> "_Process":
        while self._idle:
            process = self._idle.pop()
            if process.is_alive():
                return process
            process.kill()
        process = _Process()
        try:
            await self._threads.call(process.start, [])
        except BaseException:
            process.kill()
            raise
        return process


class _Process:
    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, self._child_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._child_end,), name="job")
        self._killed = False

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def start(self) -> None:
        """Blocks until the process can take a job."""
        self._process.start()
        self._child_end.close()  # otherwise this process would not see the pipe close when the child ends
        if self._killed:  # by another thread while it was starting
            self._process.kill()
        self._receive()

    def ask(self, order: bytes) -> bytes:
        """Blocks until the job has ended."""
        try:
            self._pipe.send_bytes(order)
        except OSError:
            raise ProcessDied(self._how_it_ended()) from None
        return self._receive()

    def kill(self) -> None:
        self._killed = True
        with suppress(ValueError, AttributeError):  # it was never started
            self._process.kill()
        with suppress(OSError):
            self._child_end.close()

    def _receive(self) -> bytes:
        try:
            return self._pipe.recv_bytes()
        except (EOFError, OSError):
            raise ProcessDied(self._how_it_ended()) from None

    def _how_it_ended(self) -> str:
        self._process.join(JOIN_SECONDS)
        code = self._process.exitcode
        if code is not None and code < 0:
            with suppress(ValueError):
                return f"its process was killed by {signal.Signals(-code).name}"
        return f"its process ended with exit status {code}"


def _serve(pipe: Connection) -> None:
    """In the child: run one job after another until the parent closes the pipe."""
    _end_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach the whole process group; only the parent acts on them
        signal.signal(number, lambda *_: None)
    ours = os.getpid()
    pipe.send_bytes(b"ready")
    while True:
        try:
            order = pipe.recv_bytes()
        except EOFError:
            return
        answer, error = _answer(order)
        end_forked_child(ours, error)
        pipe.send_bytes(answer)


def _answer(order: bytes) -> tuple[bytes, BaseException | None]:
    try:
        perform, args = pickle.loads(order)  # noqa: S301  from the parent
        return pickle.dumps((perform(*args), None)), None
    except BaseException as error:
        return pickle.dumps((None, Report(*report_of(error)))), error


def _end_with_parent() -> None:
    """End this process when its parent is killed; otherwise it would wait forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os._exit(0)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()
