"""Misbehaving job code fails only its own attempt."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import resque
from tests.support.programs import until
from tests.support.resque import Definition, Resque


class TwoArguments(Exception):
    """pickle can write it but not read it."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} {two}")


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no")

    __repr__ = __str__


class UnprintableCause(resque.Permanent):
    @property
    def __cause__(self) -> Any:  # type: ignore[override]
        raise ValueError("no")


class Strange(BaseException):
    pass


def two_arguments() -> None:
    raise TwoArguments("cannot", "cross")


def unprintable() -> None:
    raise Unprintable


def unprintable_cause() -> None:
    raise UnprintableCause("a cause that cannot be read")


def unprintable_in_permanent() -> None:
    raise resque.Permanent("given up") from Unprintable()


def exits() -> None:
    sys.exit(2)


def interrupts() -> None:
    raise KeyboardInterrupt


def stops_iteration() -> None:
    raise StopIteration


def exits_a_generator() -> None:
    raise GeneratorExit


def strange() -> None:
    raise Strange("not an Exception")


def cancelled() -> None:
    raise asyncio.CancelledError


def huge() -> None:
    raise ValueError("x" * 5_000_000)


RAISES = {
    two_arguments: ("TwoArguments", "cannot cross"),
    unprintable: ("Unprintable", "(the error cannot be shown: its __str__ fails)"),
    unprintable_cause: ("UnprintableCause", "a cause that cannot be read"),
    unprintable_in_permanent: ("Unprintable", "given up"),
    exits: ("SystemExit", "2"),
    interrupts: ("KeyboardInterrupt", ""),
    stops_iteration: ("StopIteration", ""),
    exits_a_generator: ("GeneratorExit", ""),
    strange: ("Strange", "not an Exception"),
    cancelled: ("CancelledError", ""),
    huge: ("ValueError", "x" * 20_000),
}


def on_the_loop(perform: Any) -> Any:
    async def performs() -> None:
        await asyncio.sleep(0)
        if perform is stops_iteration:  # Python turns this one into a RuntimeError in a coroutine
            return exits()
        perform()

    return performs


def note(number: int) -> int:
    return number


@pytest.mark.parametrize("where", ["loop", "thread", "process"])
async def test_an_error_of_a_job_fails_only_that_job(r: Resque, where: str) -> None:
    definitions = {"note": Definition(note, in_process=where == "process", attempts=1)}
    for perform in RAISES:
        function = on_the_loop(perform) if where == "loop" else perform
        definitions[perform.__name__] = Definition(function, attempts=1, in_process=where == "process")
    for number, perform in enumerate(RAISES):
        await r.queue.enqueue("q", perform.__name__)
        await r.queue.enqueue("q", "note", [number])
    async with r.working(definitions=definitions, processes=2, scaling=resque.Scaling(10, 10)):
        await until(lambda: len(r.events("Succeeded")) + len(r.failed()) == 2 * len(RAISES), "all have ended")
    found = {record["payload"]["class"]: (record["exception"], record["error"]) for record in r.failed()}
    expected = {perform.__name__: raised for perform, raised in RAISES.items()}
    if where == "thread":  # Python turns a StopIteration that leaves a coroutine into a RuntimeError
        expected["stops_iteration"] = ("RuntimeError", "coroutine raised StopIteration")
    if where == "loop":
        expected["stops_iteration"] = expected["exits"]
    assert found == expected
    assert sorted(event.result for event in r.events("Succeeded")) == list(range(len(RAISES)))
    assert len(r.events("JobStarted")) == 2 * len(RAISES), "each was tried once"


async def test_a_task_that_a_job_starts_may_call_exit(r: Resque) -> None:
    async def leaves() -> None:
        sys.exit(3)

    async def gathers() -> None:
        await asyncio.gather(leaves(), asyncio.sleep(0.01))

    async def cancels_itself() -> None:
        task = asyncio.current_task()
        assert task
        task.cancel()
        await asyncio.sleep(0)

    definitions = {f.__name__: Definition(f, attempts=1) for f in (gathers, cancels_itself)}
    for name in definitions:
        await r.queue.enqueue("q", name)
    async with r.working(definitions=definitions):
        await until(lambda: len(r.failed()) == 2)
    assert sorted((f["exception"], f["error"]) for f in r.failed()) == [
        ("CancelledError", ""),
        ("Exited", "SystemExit 3"),
    ]
    assert len(r.events("JobStarted")) == 2


def dies() -> None:
    os._exit(7)


def is_killed() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def forks() -> None:
    os.fork()


def never_ends() -> None:
    while True:
        pass


def gives_a_lambda() -> Any:
    return lambda: None


def sleeps(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


async def test_a_process_that_dies_fails_only_the_attempt_of_its_own_job(r: Resque) -> None:
    names = (dies, is_killed, never_ends, gives_a_lambda, forks, sleeps)
    definitions = {f.__name__: Definition(f, attempts=1, in_process=True) for f in names}
    definitions["never_ends"] = Definition(never_ends, attempts=1, in_process=True, time_limit=1.0)
    definitions["local"] = Definition(lambda: None, attempts=1, in_process=True)
    for name in ("dies", "is_killed", "never_ends", "gives_a_lambda", "local", "forks"):
        await r.queue.enqueue("q", name)
        await r.queue.enqueue("q", "sleeps", [0.1])
    async with r.working(definitions=definitions, processes=3, scaling=resque.Scaling(12, 12)):
        await until(lambda: len(r.events("Succeeded")) + len(r.failed()) == 12)
    found = {record["payload"]["class"]: (record["exception"], record["error"]) for record in r.failed()}
    assert len(r.events("Succeeded")) == 7, found
    assert found.keys() == {"dies", "is_killed", "never_ends", "gives_a_lambda", "local"}
    assert found["dies"] == ("ProcessDied", "its process ended with exit status 7")
    assert found["is_killed"] == ("ProcessDied", "its process was killed by SIGSEGV")
    assert found["never_ends"] == ("TimeoutError", "not done within 1 s")
    assert "pickle" in found["gives_a_lambda"][1]


@pytest.mark.parametrize("in_process", [True, False])
async def test_the_time_limit_begins_with_the_attempt(r: Resque, in_process: bool) -> None:
    definitions = {"sleeps": Definition(sleeps, attempts=1, in_process=in_process, time_limit=10.0)}
    for _ in range(24):
        await r.queue.enqueue("q", "sleeps", [1.0])
    async with r.working(definitions=definitions, processes=2, scaling=resque.Scaling(24, 24)):
        await until(lambda: len(r.events("Succeeded")) + len(r.failed()) == 24)
    assert r.failed() == []


async def test_a_thread_that_exceeds_its_limit_does_not_block_other_jobs(r: Resque) -> None:
    import threading

    release = threading.Event()
    definitions = {
        "hangs": Definition(lambda: release.wait(30), attempts=1, time_limit=0.1),
        "note": Definition(note, attempts=1),
    }
    for _ in range(20):
        await r.queue.enqueue("q", "hangs")
    await r.queue.enqueue("q", "note", [1])
    try:
        async with r.working(definitions=definitions, scaling=resque.Scaling(4, 4)) as worker:
            await until(lambda: r.events("Succeeded"))
            assert len(r.failed()) >= 17
            assert worker._executor.threads.overrun >= 17
            release.set()
            await until(lambda: worker._executor.threads.overrun == 0)
    finally:
        release.set()


def swallowing(gate: asyncio.Event) -> Callable[[], Awaitable[None]]:
    """A job that swallows each cancellation until the gate is open."""

    async def swallow() -> None:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue

    return swallow


async def test_a_job_that_swallows_its_cancellation_does_not_prevent_the_worker_from_stopping(r: Resque) -> None:
    gate = asyncio.Event()
    await r.queue.enqueue("q", "swallows")
    async with r.working(definitions={"swallows": Definition(swallowing(gate))}, drain_seconds=0.05):
        await until(lambda: r.events("JobStarted"))
    assert len(r.waiting()) == 1
    gate.set()


async def test_a_job_that_swallows_its_cancellation_fails_at_its_limit(r: Resque) -> None:
    gate = asyncio.Event()
    await r.queue.enqueue("q", "swallows")
    async with r.working(definitions={"swallows": Definition(swallowing(gate), attempts=1, time_limit=0.05)}):
        await until(r.failed)
    gate.set()
