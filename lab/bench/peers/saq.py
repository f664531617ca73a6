"""SAQ: https://github.com/tobymao/saq"""

import uvloop
from saq import Queue, Worker

from lab.bench.peers.interface import URL, concurrency, enqueue_all, is_worker, job


async def noop(context: object, *, number: int, text: str) -> None:
    await job(number)


async def work() -> None:
    await Worker(Queue.from_url(URL), [("noop", noop)], concurrency=concurrency()).start()


async def enqueue() -> None:
    queue = Queue.from_url(URL)
    await queue.connect()
    await enqueue_all(lambda number, text: queue.enqueue("noop", number=number, text=text))
    await queue.disconnect()


if __name__ == "__main__":
    uvloop.run(work() if is_worker() else enqueue())
