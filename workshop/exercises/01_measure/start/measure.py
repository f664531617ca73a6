"""Your file: how long callers wait for the answers of a web server.

`measure.py URL COUNT CALLERS` requests COUNT emails from the server at URL, with CALLERS callers at the same time, and
prints one line of JSON: {"p50_ms", "p99_ms", "max_ms"}.
"""

import asyncio
import json
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
    async with ClientSession() as session:
        return [await ask(session, url, number) for number in range(count)]


def percentile(times: list[float], percent: float) -> float:
    """The time within which `percent` percent of the callers had their answer."""
    return sum(times) / len(times)


async def main(url: str, count: int, callers: int) -> None:
    times = await measure(url, count, callers)
    figures = {"p50_ms": percentile(times, 50), "p99_ms": percentile(times, 99), "max_ms": max(times)}
    print(json.dumps(figures), flush=True)


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
