"""What the programs in Python share: the job, and how the arguments are read.

It uses only the standard library, because each program runs in the environment of its peer.
"""

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable

TEXT = "x" * 64
"""The payload, besides the number."""
URL = os.environ.get("REDIS_URL", "")

Enqueue = Callable[[int, str], Awaitable[object]]

_file = os.open(os.environ["RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT) if "RECORD" in os.environ else -1
_seconds = float(sys.argv[3]) / 1000 if sys.argv[1:2] == ["work"] else 0.0


def _end_with_parent() -> None:
    """End when the runner ends. It holds the other end of our standard input, which then closes, even after a kill."""
    if not os.read(sys.stdin.fileno(), 1):
        os._exit(1)


if sys.argv[1:2] == ["work"]:
    threading.Thread(target=_end_with_parent, daemon=True).start()


async def job(number: int) -> None:
    if _seconds:
        record(-1 - number)
        await asyncio.sleep(_seconds)
    record(number)


def job_in_thread(number: int) -> None:
    if _seconds:
        record(-1 - number)
        time.sleep(_seconds)
    record(number)


def record(number: int) -> None:
    os.write(_file, b"%d %d\n" % (number, time.monotonic_ns()))


def concurrency() -> int:
    return int(sys.argv[2])


def is_worker() -> bool:
    return sys.argv[1] == "work"


async def enqueue_all(enqueue: Enqueue) -> None:
    first, count, callers, pause_ms = map(int, sys.argv[2:6])
    numbers = iter(range(first, first + count))
    asked: dict[int, int] = {}

    async def call() -> None:
        for number in numbers:
            if pause_ms:
                await asyncio.sleep(pause_ms / 1000)
                asked[number] = time.monotonic_ns()
            await enqueue(number, TEXT)

    started = time.perf_counter()
    await asyncio.gather(*[call() for _ in range(callers)])
    print(json.dumps({"seconds": time.perf_counter() - started, "asked_ns": asked}), flush=True)


def enqueue_all_in_thread(enqueue: Callable[[int, str], object]) -> None:
    """For a library without asyncio."""

    async def call(number: int, text: str) -> None:
        enqueue(number, text)

    asyncio.run(enqueue_all(call))
