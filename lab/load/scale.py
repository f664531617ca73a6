"""`python -m lab.load.scale`: a worker with very many queues or slots, in the Redis of REDIS_URL. Prints JSON.

queues   an idle worker listens to COUNT queues, and another program sends it single jobs (a plain RPUSH): the time from
         the push to the start of the job, for the first 16 queues and for the others, and the worker's connections
slots    a worker with COUNT slots gets COUNT jobs that sleep: the resident memory of its process, and the longest stall
         of its event loop while it claims the jobs, while it sends two heartbeats, and while all of the jobs end
idle     the longest stall of an event loop that does nothing for COUNT seconds: other programs cause it
"""

import asyncio
import json
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis

import resque
from asynckit.redis_client import redis_client
from asynckit.tasks import end_tasks
from common.settings import read_settings
from lab.harness.figures import Facts, percentile
from lab.harness.machine import resident_bytes
from lab.load.queue import run_command
from resque import events

NAME = "noop"
FIRST = 16  # queues
PUSHES = 150  # to either part of the queues
PAUSE_SECONDS = 0.02
PROBE_SECONDS = 0.002
LEASE_SECONDS = 10.0
LOAD_NAME = "lab"  # of the connection that is not the worker's


class Stalls:
    """Measures how much later than planned a timer fires, and how much CPU time the thread of the loop used before."""

    def __init__(self) -> None:
        self._worst = self._worst_cpu = 0.0

    async def run(self) -> None:
        while True:
            started, cpu = time.perf_counter(), time.thread_time()
            await asyncio.sleep(PROBE_SECONDS)
            self._worst = max(self._worst, time.perf_counter() - started - PROBE_SECONDS)
            self._worst_cpu = max(self._worst_cpu, time.thread_time() - cpu)

    def read(self) -> Facts:
        """The worst since the last call, in ms."""
        found = {"stall_ms": self._worst * 1000, "stall_cpu_ms": self._worst_cpu * 1000}
        self._worst = self._worst_cpu = 0.0
        return found


@asynccontextmanager
async def working(
    names: list[str], perform: Callable[..., Awaitable[None]], slots: int, hook: Callable[[object], object]
) -> AsyncIterator[None]:
    stopped = asyncio.Event()

    async def stop() -> str:
        await stopped.wait()
        return "all done"

    async with resque.open_connections(read_settings().redis) as connections:
        definitions = {NAME: resque.Definition(perform)}
        scaling = resque.Scaling(slots, slots)
        worker = resque.Worker(connections, names, definitions, scaling=scaling, hook=hook, lease_seconds=LEASE_SECONDS)
        running = asyncio.create_task(worker.run(stop))
        try:
            yield
        finally:
            stopped.set()
            await running


async def queues(count: int) -> Facts:
    names = [f"bench-{number}" for number in range(count)]
    begun: dict[str, asyncio.Future[float]] = {}
    polled = asyncio.Event()

    async def noop(number: str) -> None:
        begun[number].set_result(time.perf_counter())

    def hook(event: object) -> None:
        if isinstance(event, events.Polled):
            polled.set()

    async with redis_client(read_settings().redis) as redis, working(names, noop, 10, hook):
        await redis.client_setname(LOAD_NAME)
        await polled.wait()

        async def push(name: str) -> float:
            await asyncio.sleep(PAUSE_SECONDS * random.uniform(0.5, 1.5))
            number = str(len(begun))
            begun[number] = asyncio.get_running_loop().create_future()
            started = time.perf_counter()
            await redis.rpush(f"resque:queue:{name}", json.dumps({"class": NAME, "args": [number]}))
            return (await begun[number] - started) * 1000

        first = [await push(names[number % FIRST]) for number in range(PUSHES)]
        others = [await push(random.choice(names[FIRST:])) for _ in range(PUSHES if count > FIRST else 0)]
        connections = [client for client in await redis.client_list() if client["name"] != LOAD_NAME]
    return {"connections": len(connections), "first": spread(first), "others": spread(others), "jobs": len(begun)}


def spread(times: list[float]) -> Facts:
    return {"p50_ms": percentile(times, 50), "worst_ms": percentile(times, 100)}


async def slots(count: int) -> Facts:
    running, done, full, ended, end = 0, 0, asyncio.Event(), asyncio.Event(), asyncio.Event()
    before = resident_bytes([os.getpid()])

    async def sleep(_: object) -> None:
        nonlocal running
        running += 1
        if running == count:
            full.set()
        await end.wait()

    def hook(event: object) -> None:
        nonlocal done
        if isinstance(event, events.Succeeded):
            done += 1
            if done == count:
                ended.set()

    async with redis_client(read_settings().redis) as redis:
        await fill(redis, count)
        stalls = Stalls()
        probe = asyncio.create_task(stalls.run())
        started = time.perf_counter()
        async with working(["bench"], sleep, count, hook):
            await full.wait()
            seconds = time.perf_counter() - started
            claiming = stalls.read()
            await asyncio.sleep(LEASE_SECONDS * 0.7)
            beating, memory = stalls.read(), resident_bytes([os.getpid()])
            end.set()
            await ended.wait()
            ending = stalls.read()
        stopping = stalls.read()
        await end_tasks([probe])
    return {
        "slots": running,
        "done": done,
        "claim_seconds": seconds,
        "mb": memory / 1e6,
        "before_mb": before / 1e6,
        "claiming": claiming,
        "beating": beating,
        "ending": ending,
        "stopping": stopping,
    }


async def idle(count: int) -> Facts:
    stalls = Stalls()
    probe = asyncio.create_task(stalls.run())
    await asyncio.sleep(count)
    await end_tasks([probe])
    return {"idle": stalls.read()}


async def fill(redis: Redis, count: int) -> None:
    queue: Any = resque.Queue(redis)
    for first in range(0, count, 1000):
        calls = [queue.enqueue("bench", NAME, [{"text": "x" * 7}]) for _ in range(first, min(first + 1000, count))]
        await asyncio.gather(*calls)


COMMANDS = {"queues": queues, "slots": slots, "idle": idle}


if __name__ == "__main__":
    run_command(__doc__, COMMANDS)
