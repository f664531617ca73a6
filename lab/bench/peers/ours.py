"""The queue of this repository."""

import asyncio
from typing import Any

import uvloop

import resque
from asynckit.redis_client import redis_client
from lab.bench.peers.interface import URL, concurrency, enqueue_all, is_worker, job


async def noop(argument: dict[str, Any]) -> None:
    await job(argument["number"])


async def work() -> None:
    async def stop() -> str:
        await asyncio.Event().wait()
        return ""

    async with resque.open_connections(URL) as connections:
        scaling = resque.Scaling(concurrency(), concurrency())
        await resque.Worker(connections, ["bench"], {"noop": resque.Definition(noop)}, scaling=scaling).run(stop)


async def enqueue() -> None:
    async with redis_client(URL) as redis:
        queue: Any = resque.Queue(redis)
        await enqueue_all(lambda number, text: queue.enqueue("bench", "noop", [{"number": number, "text": text}]))


if __name__ == "__main__":
    uvloop.run(work() if is_worker() else enqueue())
