"""arq: https://arq-docs.helpmanual.io"""

import uvloop
from arq import Worker, create_pool, func
from arq.connections import RedisSettings

from lab.bench.peers.interface import URL, concurrency, enqueue_all, is_worker, job


async def noop(context: object, number: int, text: str) -> None:
    await job(number)


async def work() -> None:
    settings = RedisSettings.from_dsn(URL)
    await Worker([func(noop, name="noop")], redis_settings=settings, max_jobs=concurrency()).async_run()


async def enqueue() -> None:
    pool = await create_pool(RedisSettings.from_dsn(URL))
    await enqueue_all(lambda number, text: pool.enqueue_job("noop", number, text))
    await pool.aclose()


if __name__ == "__main__":
    uvloop.run(work() if is_worker() else enqueue())
