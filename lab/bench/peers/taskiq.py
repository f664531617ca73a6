"""taskiq with taskiq-redis: https://taskiq-python.github.io. This broker, on Redis Streams, acknowledges jobs."""

import uvloop
from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker

from lab.bench.peers.interface import URL, concurrency, enqueue_all, is_worker, job

broker = RedisStreamBroker(URL)


@broker.task(task_name="noop")
async def noop(number: int, text: str) -> None:
    await job(number)


async def work() -> None:
    broker.is_worker_process = True
    await run_receiver_task(broker, max_async_tasks=concurrency(), run_startup=True)


async def enqueue() -> None:
    await broker.startup()
    await enqueue_all(lambda number, text: noop.kiq(number, text))
    await broker.shutdown()


if __name__ == "__main__":
    uvloop.run(work() if is_worker() else enqueue())
