"""What all processes of the project have in common: the log, the event loop, and how they are stopped."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import ContextVar
from functools import cache
from typing import Any, TextIO

import uvloop

from common.processes.log_format import PrintableFormatter
from common.processes.redis_role import refuse_unsupported

LIFELINE = "SIX_WAYS_LIFELINE"
"""Set in the environment of a child whose standard input is a pipe or a socket from its parent. It closes when the
parent ends. Through the socket, the child reports that it has started: see `stop_requested`."""

log = logging.getLogger(__name__)


def run(
    main: Coroutine[Any, Any, None], redis: str | None = None, *, prefix: str = "", until_stopped: bool = True
) -> None:
    """Run a role on uvloop until it ends, with the log on standard output, and the prefix before each line.

    The role must wait for `stop_requested`, because signals have no other effect. Pass `until_stopped=False` for a
    program that ends by itself; then signals work as usual. `redis` is the URL of a Redis of the reader's own. If the
    strategies cannot use it, the program ends with one line and exit status 2; `make run-N` has checked that before.
    """
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # not shown, so not looked up
    logging._srcfile = None  # nor is the line of code that logs
    handler = Output(sys.stdout)
    handler.setFormatter(PrintableFormatter(f"{prefix}%(asctime)s.%(msecs)03d %(message)s", "%H:%M:%S"))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    gc.freeze()  # imported modules are never freed, so the garbage collector need not check them again and again
    gc.set_threshold(20_000, 20, 20)  # instead of 700 objects: few of ours are in cycles, and most live only briefly
    if until_stopped:
        _run_until_stopped(_listening(main, redis))
    else:
        uvloop.run(main)


def _run_until_stopped(main: Coroutine[Any, Any, None]) -> None:
    """Run the role. If code that runs on the event loop stops the loop (`loop.stop()`, or sys.exit in a callback) or
    cancels all tasks, end the process at once, as if it were killed: the cleanup of a worker after a cancellation could
    block, and would release the job that caused this without counting an attempt.
    """

    async def its_error() -> BaseException | None:
        role = asyncio.create_task(_error_of(main))
        await asyncio.wait([role])  # raises CancelledError at once if all tasks are cancelled
        return role.result()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            error = runner.run(its_error())
            if isinstance(error, asyncio.CancelledError):
                raise error
        except BaseException as stopped:
            log.critical("a job has stopped the event loop or cancelled all tasks", exc_info=stopped)
            logging.shutdown()
            os._exit(1)
    if error is not None:
        raise error


async def _error_of(main: Coroutine[Any, Any, None]) -> BaseException | None:
    try:
        await main
    except BaseException as error:
        return error
    return None


class Output(logging.StreamHandler[TextIO]):
    """Writes INFO lines together, at the end of the tick of the event loop, and all other lines at once.

    If standard output is closed (`| head`) or full, the process stops: see `lost_output`.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append(f"{self.format(record)}\n")
        except Exception:
            self.handleError(record)
        if record.levelno > logging.INFO or (loop := _running_loop()) is None:
            self.flush()
        elif len(self._lines) == 1:
            loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write the lines that are waiting. `logging` calls it when the process exits, too."""
        self.acquire()
        try:
            lines, self._lines = self._lines, []
            self.stream.write("".join(lines))
            self.stream.flush()
        except Exception:
            self.handleError(logging.makeLogRecord({"msg": "cannot write the log"}))
        finally:
            self.release()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  the name is logging's
        if isinstance(sys.exc_info()[1], OSError):
            lost_output()
            self.stream = sys.stdout
        else:
            super().handleError(record)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def lost_output() -> None:
    """Standard output is closed or full: write nothing more to it, and stop this process in order."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if _request is not None:
        _request("standard output is closed or full")


_request: Callable[[str], object] | None = None
"""Tells this process to stop, from any thread. None in a program that ends by itself."""
_stop: ContextVar[asyncio.Future[str]] = ContextVar("_stop")
"""Done when this process is told to stop, with the reason."""


def stop_signals() -> list[signal.Signals]:
    """The signals that stop a process in order. `nohup` ignores SIGHUP, and then the process goes on."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM] + ([] if ignored else [signal.SIGHUP])


async def stop_requested(*, started: bool = True) -> str:
    """Wait until this process is told to stop, and return the reason. Only in a process that `run` runs.

    The reasons: SIGTERM from the parent, Ctrl-C in the terminal, the end of the terminal (SIGHUP, unless `nohup` has
    started the process), or the end of the parent. Even when the parent is killed, its end of the lifeline closes, so
    no process stays behind without a parent.

    The first call reports to `make run-N` that this role has started. Before that, exit status 2 means that a setting
    is wrong, and ends the strategy. After it, the process is started again, whatever its exit status. A role that may
    still find a wrong setting passes `started=False`.
    """
    if started:
        _report_start()
    return await asyncio.shield(_stop.get())


@cache
def _report_start() -> None:
    if LIFELINE in os.environ:
        with suppress(OSError):  # standard input is a pipe: this parent expects no report
            os.write(sys.stdin.fileno(), b"1")


async def _listening(main: Coroutine[Any, Any, None], redis: str | None) -> None:
    """Handle the signals, then run `main`: a signal may come as soon as a role has logged that it is ready."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[str] = loop.create_future()
    _stop.set(stop)

    def request(reason: str) -> None:
        if not stop.done():
            stop.set_result(reason)

    def request_from_any_thread(reason: str) -> None:
        loop.call_soon_threadsafe(request, reason)

    def read_lifeline() -> None:
        with suppress(ConnectionResetError):  # the parent has ended without reading our report
            if os.read(stdin, 1):
                return
        loop.remove_reader(stdin)
        request("the parent has ended")

    global _request
    _request = request_from_any_thread
    for number in stop_signals():
        loop.add_signal_handler(number, request, number.name)
    if LIFELINE in os.environ:
        stdin = sys.stdin.fileno()
        loop.add_reader(stdin, read_lifeline)
    try:
        if redis is not None and LIFELINE not in os.environ:
            await refuse_unsupported(redis)
    except SystemExit:
        main.close()
        raise
    await main
