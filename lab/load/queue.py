"""`python -m lab.load.queue`: no-op jobs for strategy 5's queue in the Redis of REDIS_URL. Prints JSON.

enqueue   enqueue COUNT jobs of 100 bytes, from many callers with one call in flight each; "bytes" is the Redis memory
          of one job
work      process COUNT jobs in this process
idle      enqueue one job at a time for an idle worker: the time from the call to the start of the job, p50 and p99
show      inspect the queue: the time to read its length, its age and its first page of jobs (ms)
"""

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import uvloop

import resque
from asynckit.redis_client import redis_client
from common.settings import read_settings
from lab.harness.figures import Facts, percentile
from resque import events, keys, queues

QUEUE, IDLE_QUEUE, NAME = "bench", "bench-idle", "noop"
CALLERS = 200
SLOTS = 200
ARGUMENT = {"text": "x" * 7}  # makes a job of 100 bytes, with its id
PAUSE_SECONDS = 0.005


async def enqueue(count: int) -> Facts:
    async with redis_client(read_settings().redis) as redis:
        queue, reader = resque.Queue(redis), queues.Queues(redis, keys.Keys())

        async def call(times: int) -> None:
            for _ in range(times):
                await queue.enqueue(QUEUE, NAME, [ARGUMENT])

        await call(1)
        [item] = await reader.jobs(QUEUE, -1, 1)
        before = (await redis.info("memory"))["used_memory"]
        started = time.perf_counter()
        await asyncio.gather(*[call(count // CALLERS) for _ in range(CALLERS)])
        seconds = time.perf_counter() - started
        grown = (await redis.info("memory"))["used_memory"] - before
    jobs = count // CALLERS * CALLERS
    return facts(jobs, seconds) | {"bytes": grown / jobs, "raw_bytes": item.size}


async def work(count: int) -> Facts:
    done, last = 0, asyncio.Event()

    async def noop(_: object) -> None:
        nonlocal done
        done += 1
        if done == count:
            last.set()

    async def stop() -> str:
        await last.wait()
        return "all done"

    async with resque.open_connections(read_settings().redis) as connections:
        started = time.perf_counter()
        await worker(connections, noop, resque.Scaling(SLOTS, SLOTS)).run(stop)
        return facts(done, time.perf_counter() - started)


async def idle(count: int) -> Facts:
    times: list[float] = []
    begun, stopped, ready = asyncio.Event(), asyncio.Event(), asyncio.Event()
    called = 0.0

    async def noop(_: object) -> None:
        times.append((time.perf_counter() - called) * 1000)
        begun.set()

    async def stop() -> str:
        await stopped.wait()
        return "all done"

    async with (
        redis_client(read_settings().redis) as redis,
        resque.open_connections(read_settings().redis) as connections,
    ):
        queue = resque.Queue(redis)
        hook = ready_after_poll(ready)
        running = asyncio.create_task(worker(connections, noop, resque.Scaling(1, 10), hook, IDLE_QUEUE).run(stop))
        await ready.wait()
        for _ in range(count):
            await asyncio.sleep(PAUSE_SECONDS)
            begun.clear()
            called = time.perf_counter()
            await queue.enqueue(IDLE_QUEUE, NAME, [ARGUMENT])
            await begun.wait()
        stopped.set()
        await running
    return {"count": count, "p50_ms": percentile(times, 50), "p99_ms": percentile(times, 99)}


async def show(count: int) -> Facts:
    async with redis_client(read_settings().redis) as redis:
        reader = queues.Queues(redis, keys.Keys())
        times = []
        for _ in range(count):
            started = time.perf_counter()
            [state] = await reader.states([QUEUE])
            await reader.jobs(QUEUE, 0, 20)
            times.append((time.perf_counter() - started) * 1000)
    return {"count": count, "length": state.length, "p50_ms": percentile(times, 50), "p99_ms": percentile(times, 99)}


def worker(
    connections: Any,
    perform: Callable[..., Any],
    scaling: resque.Scaling,
    hook: Callable[[object], object] = lambda _: None,
    queue: str = QUEUE,
) -> Any:
    return resque.Worker(connections, [queue], {NAME: resque.Definition(perform)}, scaling=scaling, hook=hook)


def ready_after_poll(ready: asyncio.Event) -> Callable[[object], object]:
    return lambda event: ready.set() if isinstance(event, events.Polled) else None


def facts(jobs: int, seconds: float) -> Facts:
    return {"jobs": jobs, "seconds": seconds, "rate": jobs / seconds}


COMMANDS = {"enqueue": enqueue, "work": work, "idle": idle, "show": show}


def run_command(doc: str | None, commands: Mapping[str, Callable[[int], Coroutine[Any, Any, Facts]]]) -> None:
    """Run the command and the count that the command line gives, and print the facts as JSON."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=list(commands))
    parser.add_argument("count", type=int)
    options = parser.parse_args()
    print(json.dumps(uvloop.run(commands[options.command](options.count))))


if __name__ == "__main__":
    run_command(__doc__, COMMANDS)
