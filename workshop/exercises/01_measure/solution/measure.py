"""Your file: how long callers wait for the answers of a web server.

`measure.py URL COUNT CALLERS` requests COUNT emails from the server at URL, with CALLERS callers at the same time, and
prints one line of JSON: {"p50_ms", "p99_ms", "max_ms"}.
"""

import asyncio
import json
import math
import sys
import time

from aiohttp import ClientSession


async def ask(session: ClientSession, url: str, number: int) -> float:
    """Request one email. Returns how long the caller waited, in milliseconds."""
    began = time.perf_counter()
    async with session.get(f"{url}measure-{number}@example.com/Hello/{number}") as response:
        await response.read()
    return (time.perf_counter() - began) * 1000


async def measure(url: str, count: int, callers: int) -> list[float]:
    """Request the emails 0 to count - 1. Returns all waiting times."""
    numbers = iter(range(count))

    async def call(session: ClientSession) -> list[float]:
        """One caller: the next email as soon as it has its answer, until there are none left."""
        return [await ask(session, url, number) for number in numbers]

    async with ClientSession() as session:
        of_each = await asyncio.gather(*[call(session) for _ in range(callers)])
    return [one for times in of_each for one in times]


def percentile(times: list[float], percent: float) -> float:
    """The time within which `percent` percent of the callers had their answer."""
    return sorted(times)[math.ceil(len(times) * percent / 100) - 1]


async def main(url: str, count: int, callers: int) -> None:
    times = await measure(url, count, callers)
    figures = {"p50_ms": percentile(times, 50), "p99_ms": percentile(times, 99), "max_ms": max(times)}
    print(json.dumps(figures), flush=True)


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
