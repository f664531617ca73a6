"""`python -m lab.load.redis`: commands to the Redis of REDIS_URL from many callers, each with one call in flight.

With --batched the calls go through asynckit/batcher.py, one pipeline per batch; otherwise each call is one command.
Prints JSON: calls, seconds, calls per second, times in ms.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import count

import uvloop
from redis.asyncio import Redis

from asynckit.batcher import Batcher
from asynckit.redis_client import redis_client
from common.settings import read_settings
from lab.harness.figures import percentile
from lab.load.http import TEXT

KINDS = {
    "set": "each value is on disk before its answer",
    "publish": "nothing is on disk, and the channel has no subscriber",
}

Command = tuple[str, str, bytes]


class RedisLoad:
    def __init__(self, redis: Redis, command: str, *, batched: bool) -> None:
        self.times: list[int] = []  # ns
        self._redis = redis
        self._command = command
        self._batcher: Batcher[Command, object] = Batcher(self._pipeline)
        self._call: Callable[[Command], Awaitable[object]] = self._batcher if batched else self._execute
        self._numbers = count()

    async def run(self, callers: int, seconds: float) -> float:
        """Call for at least `seconds`. Returns the seconds that it took."""
        started = time.perf_counter()
        await asyncio.gather(*[self._call_until(started + seconds) for _ in range(callers)])
        return time.perf_counter() - started

    async def _call_until(self, deadline: float) -> None:
        while time.perf_counter() < deadline:
            started = time.perf_counter_ns()
            await self._call((self._command, f"lab:{next(self._numbers) % 1000}", TEXT.encode()))
            self.times.append(time.perf_counter_ns() - started)

    async def _execute(self, command: Command) -> object:
        return await self._redis.execute_command(*command)  # type: ignore[no-untyped-call]

    async def _pipeline(self, commands: Sequence[Command]) -> Sequence[object]:
        pipeline = self._redis.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        results: Sequence[object] = await pipeline.execute()
        return results


async def load(command: str, callers: int, seconds: float, *, batched: bool) -> dict[str, float]:
    async with redis_client(read_settings().redis) as redis:
        redis_load = RedisLoad(redis, command, batched=batched)
        await redis_load.run(callers, 0.1)  # opens the connections
        redis_load.times.clear()
        took = await redis_load.run(callers, seconds)
    times = redis_load.times
    figures = {f"p{percent}_ms": percentile(times, percent) / 1e6 for percent in (50, 99)}
    return {"calls": len(times), "seconds": took, "rate": len(times) / took, **figures}


def main() -> None:
    parser = argparse.ArgumentParser(description="Commands to the Redis of REDIS_URL.")
    parser.add_argument("command", choices=list(KINDS))
    parser.add_argument("--callers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--batched", action="store_true", help="through the batcher")
    options = parser.parse_args()
    print(json.dumps(uvloop.run(load(options.command, options.callers, options.seconds, batched=options.batched))))


if __name__ == "__main__":
    main()
