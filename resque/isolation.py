"""Runs the code of a job in isolation: whatever it does affects only its own attempt.

A job may call `sys.exit`, cancel its own task, or swallow a cancellation. A SystemExit in a task would end the program,
and a future must not get a StopIteration as its exception. So the outcome of a job's code is passed as a value.
"""

import asyncio
import contextvars
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple

from asynckit.isolation import end_forked_child, in_job

STOP_SECONDS = 1.0  # time for a cancelled job to end
AGAIN_SECONDS = 0.1  # between two cancellations of a job that swallows them

log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    result: Any = None
    error: BaseException | None = None

    def get(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.result


def not_done(limit: float | None) -> TimeoutError:
    return TimeoutError(f"not done within {limit:g} s")


async def call_on_loop(perform: Callable[..., Awaitable[Any]], args: Sequence[Any], limit: float | None = None) -> Any:
    """Await `perform(*args)` in its own task, for at most `limit` seconds.

    Raises what the job raises, or TimeoutError. A job that ignores its cancellation keeps running, and a warning is
    logged.
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
    in_job.set(True)
    ours = os.getpid()
    try:
        outcome = Outcome(await perform(*args))
    except BaseException as error:
        outcome = Outcome(error=error)
    end_forked_child(ours, outcome.error)
    return outcome


async def _stop(task: asyncio.Task[Outcome]) -> None:
    tries = round(STOP_SECONDS / AGAIN_SECONDS)
    while not task.done() and tries:
        task.cancel()
        await asyncio.wait([task], timeout=AGAIN_SECONDS)
        tries -= 1
    if not task.done():
        log.warning("a job ignores its cancellation and keeps running; its attempt has ended")


class Threads:
    """A thread for each call, without a queue; idle threads are reused.

    A thread cannot be stopped. A call that exceeds its limit keeps its thread, and the next call gets another:
    `overrun` counts such threads. All threads are daemons, so a job that never returns does not prevent the process
    from exiting.
    """

    def __init__(self) -> None:
        self.overrun = 0
        self._idle: list[_Thread] = []

    async def call(self, function: Callable[..., Any], args: Sequence[Any], limit: float | None = None) -> Any:
        """Call `function(*args)` in a thread. Raises what it raises, or TimeoutError after `limit` seconds."""
        thread = self._idle.pop() if self._idle else _Thread()
        answer = asyncio.get_running_loop().create_future()
        thread.submit(function, args, answer)
        try:
            await asyncio.wait([answer], timeout=limit)
        except asyncio.CancelledError:
            self._abandon(thread, answer)
            raise
        if not answer.done():
            self._abandon(thread, answer)
            raise not_done(limit)
        self._idle.append(thread)
        return answer.result().get()

    def close(self) -> None:
        while self._idle:
            self._idle.pop().end()

    def _abandon(self, thread: "_Thread", answer: "asyncio.Future[Outcome]") -> None:
        self.overrun += 1
        log.warning("a job still runs in its thread although its attempt has ended (%d such threads)", self.overrun)

        def returned(_: object) -> None:
            self.overrun -= 1
            thread.end()

        answer.add_done_callback(returned)


class _Thread:
    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=self._run, name="job", daemon=True).start()

    def submit(self, function: Callable[..., Any], args: Sequence[Any], answer: "asyncio.Future[Outcome]") -> None:
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()

        def set_result(outcome: Outcome) -> None:
            if not answer.done():
                answer.set_result(outcome)

        def call() -> None:
            outcome = _call(context, function, args)
            try:
                loop.call_soon_threadsafe(set_result, outcome)
            except RuntimeError:  # the loop is closed: the worker has stopped in the meantime
                return

        self._calls.put(call)

    def end(self) -> None:
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def _call(context: contextvars.Context, function: Callable[..., Any], args: Sequence[Any]) -> Outcome:
    ours = os.getpid()
    try:
        outcome = Outcome(context.run(function, *args))
    except BaseException as error:
        outcome = Outcome(error=error)
    end_forked_child(ours, outcome.error)
    return outcome
