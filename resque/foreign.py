"""Running the code of a job so that whatever it does ends its own attempt and nothing else.

A job may call `sys.exit`, cancel its own task, or swallow a cancellation. In a task of the event loop a SystemExit ends
the program, and an exception that is set on a future must not be a StopIteration: so a job's code raises nothing here,
its outcome is a value.
"""

import asyncio
import contextvars
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple

STOP_SECONDS = 1.0  # for a job that was cancelled to end
AGAIN_SECONDS = 0.1  # between two cancellations of one that swallows them

log = logging.getLogger(__name__)

_in_job: contextvars.ContextVar[bool] = contextvars.ContextVar("_in_job", default=False)


class Outcome(NamedTuple):
    result: Any = None
    error: BaseException | None = None

    def get(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.result


class Exited(Exception):
    """A task that a job has started called `sys.exit`."""


def not_done(limit: float | None) -> TimeoutError:
    return TimeoutError(f"not done within {limit:g} s")


async def call_on_loop(perform: Callable[..., Awaitable[Any]], args: Sequence[Any], limit: float | None = None) -> Any:
    """Await `perform(*args)` in a task of its own, for `limit` seconds at most.

    Raises what it raises. A job that does not end when it is cancelled is left behind, with a line in the log.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def end(_: object = None) -> None:
        if not ended.done():
            ended.set_result(None)

    task = loop.create_task(_outcome(perform, args))
    task.add_done_callback(end)
    timer = None if limit is None else loop.call_later(limit, end)
    try:
        await ended
    except asyncio.CancelledError:
        await _stop(task)
        raise
    finally:
        if timer is not None:
            timer.cancel()
    if not task.done():
        await _stop(task)
        raise not_done(limit)
    return task.result().get()


async def _outcome(perform: Callable[..., Awaitable[Any]], args: Sequence[Any]) -> Outcome:
    _in_job.set(True)
    try:
        return Outcome(await perform(*args))
    except BaseException as error:
        return Outcome(error=error)


async def _stop(task: asyncio.Task[Outcome]) -> None:
    tries = round(STOP_SECONDS / AGAIN_SECONDS)
    while not task.done() and tries:
        task.cancel()
        await asyncio.wait([task], timeout=AGAIN_SECONDS)
        tries -= 1
    if not task.done():
        log.warning("a job goes on although it was cancelled; its attempt has ended")


def job_task(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    """A task factory: in the tasks that a job starts, SystemExit and KeyboardInterrupt become an Exception. As they
    are, they would end the event loop.
    """
    return asyncio.Task(_guarded(coro) if _in_job.get() else coro, loop=loop, **options)


async def _guarded(coro: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await coro
    except (SystemExit, KeyboardInterrupt) as error:
        raise Exited(f"{type(error).__name__} {error}") from error


class Threads:
    """A thread for each call, at once; threads are kept and used again.

    A thread cannot be stopped. A call that has outlived its limit keeps its thread, and the next call has another:
    `left_behind` counts those. All are daemons: a job that never returns does not keep the process from ending.
    """

    def __init__(self) -> None:
        self.left_behind = 0
        self._idle: list[_Thread] = []

    async def call(self, function: Callable[..., Any], args: Sequence[Any], limit: float | None = None) -> Any:
        """Raises what it raises, or TimeoutError."""
        thread = self._idle.pop() if self._idle else _Thread()
        answer = asyncio.get_running_loop().create_future()
        thread.give(function, args, answer)
        try:
            await asyncio.wait([answer], timeout=limit)
        except asyncio.CancelledError:
            self._leave(thread, answer)
            raise
        if not answer.done():
            self._leave(thread, answer)
            raise not_done(limit)
        self._idle.append(thread)
        return answer.result().get()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().end()

    def _leave(self, thread: "_Thread", answer: "asyncio.Future[Outcome]") -> None:
        self.left_behind += 1
        log.warning("a job goes on in its thread although its attempt has ended (%d threads)", self.left_behind)

        def returned(_: object) -> None:
            self.left_behind -= 1
            thread.end()

        answer.add_done_callback(returned)


class _Thread:
    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=self._run, name="job", daemon=True).start()

    def give(self, function: Callable[..., Any], args: Sequence[Any], answer: "asyncio.Future[Outcome]") -> None:
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()

        def tell(outcome: Outcome) -> None:
            if not answer.done():
                answer.set_result(outcome)

        def call() -> None:
            outcome = _call(context, function, args)
            try:
                loop.call_soon_threadsafe(tell, outcome)
            except RuntimeError:  # the loop is closed: the worker has ended meanwhile
                return

        self._calls.put(call)

    def end(self) -> None:
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def _call(context: contextvars.Context, function: Callable[..., Any], args: Sequence[Any]) -> Outcome:
    try:
        return Outcome(context.run(function, *args))
    except BaseException as error:
        return Outcome(error=error)
