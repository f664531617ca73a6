"""Makes each call of Redis fail in each way: for a test that proves that a background task survives all of them.

A call site is a line of our code that calls Redis, directly or through one of the scripts. At each site every second
call fails, with one error after the other, until each error has been raised there.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline, PubSub
from redis.exceptions import (
    ClusterDownError,
    ConnectionError,
    MasterDownError,
    MaxConnectionsError,
    ReadOnlyError,
    TryAgainError,
)

from eventlog.scripts import Scripts as LogScripts
from resque.scripts import Scripts as QueueScripts
from tests.support.programs import ROOT

REFUSALS = (ReadOnlyError, ClusterDownError, TryAgainError, MasterDownError, MaxConnectionsError)
LOST = (ConnectionError, RuntimeError)
FAILURES = [(error, False) for error in (*REFUSALS, *LOST)] + [(error, True) for error in LOST]
"""An error, and whether Redis has executed the command before."""

OURS = ("resque", "eventlog", "4_remote_messages", "5_remote_queue", "6_event_bus")
PASSED_THROUGH = ("resque/scripts/__init__.py", "resque/answers.py", "eventlog/scripts.py", "eventlog/clock.py")


class FailingCalls:
    """Only while `armed`, and never in the task of the test itself."""

    def __init__(self, in_a_row: tuple[str, ...] = ()) -> None:
        """`in_a_row`: functions that call Redis until it succeeds once; all errors are raised without a success."""
        self.armed = False
        self.calls: Counter[str] = Counter()
        """How often each call site has called, while armed."""
        self._in_a_row = in_a_row
        self._test = asyncio.current_task()

    def left(self, *rare: str) -> dict[str, int]:
        """The call sites at which not every error has been raised yet, except in and below these functions."""
        return {
            site: number
            for site, number in self.calls.items()
            if number < self._calls_needed(site) and not {*site.split()} & {*rare}
        }

    def functions(self) -> set[str]:
        """The functions with call sites, as "FILE FUNCTION"."""
        return {" ".join(site.split()[:2]) for site in self.calls}

    def _calls_needed(self, site: str) -> int:
        return len(FAILURES) * (1 if self._is_in_a_row(site) else 2)

    def _is_in_a_row(self, site: str) -> bool:
        return site.split()[1] in self._in_a_row

    def failure(self) -> tuple[type[Exception], bool] | None:
        """The failure of this call; None if it succeeds."""
        if not self.armed or _task() is self._test or (site := _site()) is None:
            return None
        number = self.calls[site]
        self.calls[site] += 1
        step = 1 if self._is_in_a_row(site) else 2
        return FAILURES[number // step] if number % step == 0 and number // step < len(FAILURES) else None

    def wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        async def failing(*args: Any, **named: Any) -> Any:
            failure = self.failure()
            if failure and not failure[1]:
                raise failure[0]("injected")
            result = await call(*args, **named)
            if failure:
                raise failure[0]("injected, after the call")
            return result

        return failing

    def wrap_blocking(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def failing(*args: Any, **named: Any) -> Any:
            failure = self.failure()
            if failure and not failure[1]:
                raise failure[0]("injected")
            result = call(*args, **named)
            if failure:
                raise failure[0]("injected, after the call")
            return result

        return failing


def _task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # the thread of the heartbeat
        return None


def _site() -> str | None:
    """The line of our code from which Redis is called, and the function that called that line's function."""
    frame, found = sys._getframe(1), ""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else ""
        if name.partition("/")[0] in OURS and name not in PASSED_THROUGH:
            if found:
                return f"{found} {frame.f_code.co_name}"
            found = f"{name} {frame.f_code.co_name} {frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return found or None


@contextmanager
def failing_calls(monkeypatch: pytest.MonkeyPatch, *in_a_row: str) -> Iterator[FailingCalls]:
    calls = FailingCalls(in_a_row)
    patched = [(Redis, "execute_command"), (Pipeline, "execute"), (PubSub, "execute_command"), (PubSub, "get_message")]
    patched += [(QueueScripts, "__call__"), (LogScripts, "run"), (LogScripts, "run_acknowledged")]
    with monkeypatch.context() as patch:
        for owner, name in patched:
            patch.setattr(owner, name, calls.wrap(getattr(owner, name)))
        patch.setattr(redis.Redis, "execute_command", calls.wrap_blocking(redis.Redis.execute_command))
        yield calls
