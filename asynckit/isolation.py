"""Isolates the code of a job or of a handler, so that whatever it does affects only its own attempt.

The code may call `sys.exit`, which would end the event loop. It may raise a CancelledError, which would look like the
cancellation of our own task. It may also call `os.fork`. The child process must not continue to run our code, because
it shares our connections.
"""

import asyncio
import contextvars
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

in_job: contextvars.ContextVar[bool] = contextvars.ContextVar("in_job", default=False)
"""Whether this context runs the code of a job or of a handler."""


class Exited(Exception):
    """A task that a job or a handler has started has called `sys.exit`."""


async def attempt(perform: Callable[[], Awaitable[object]]) -> BaseException | None:
    """Await `perform()`, and return what it raises. Raises CancelledError if this task is being cancelled."""
    error: BaseException | None = None
    ours, token = os.getpid(), in_job.set(True)
    try:
        await perform()
    except asyncio.CancelledError as raised:
        if (task := asyncio.current_task()) is None or task.cancelling():
            raise
        error = raised  # by the code itself, or by a task that it awaits
    except BaseException as raised:
        error = raised
    finally:
        in_job.reset(token)
    end_forked_child(ours, error)
    return error


def end_forked_child(parent: int, error: BaseException | None) -> None:
    """End this process if its id is not `parent`: in this case the code has called fork, and this is the child."""
    if os.getpid() != parent:
        os._exit(0 if error is None or (type(error) is SystemExit and error.code in (None, 0)) else 1)


def isolating_task(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
    """A task factory. In tasks that a job or a handler starts, Exited replaces SystemExit and KeyboardInterrupt,
    because these would end the event loop.
    """
    return asyncio.Task(_guarded(coro) if in_job.get() else coro, loop=loop, **options)


async def _guarded(coro: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await coro
    except (SystemExit, KeyboardInterrupt) as error:
        raise Exited(f"{type(error).__name__} {error}") from error
