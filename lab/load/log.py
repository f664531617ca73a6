"""`python -m lab.load.log lua|streams`: the event log of strategy 6 in the Redis of REDIS_URL, from one process.

With --count it appends events in batches, then claims and commits them in batches. With --sizes it fills the log up to
each size in turn, and there measures appending, consuming at the end of the log, and consuming in the middle.

Events are like those of the web server, with 200 bytes of text. Prints JSON: events per second, the CPU time that
Redis spends on an event, and the bytes of memory per event, in all keys of the log together.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

import uvloop

from asynckit.ids import new_id
from asynckit.redis_client import redis_client
from common.settings import read_settings
from eventlog.events import Event
from eventlog.log import END
from eventlog.partitions import PartitionedLog
from eventlog.streams import StreamLog
from lab.load.http import TEXT

CLASSES = {"lua": PartitionedLog, "streams": StreamLog}
LEASE_SECONDS = 60.0
SAMPLE = 5_000  # events at each point of the curve
SAMPLES = 5
POLL_SECONDS = 0.5

Facts = dict[str, Any]


class LogLoad:
    def __init__(self, log: Any, redis: Any, batch: int) -> None:
        self._log = log
        self._redis = redis
        self._batch = batch

    async def append(self, count: int) -> None:
        for start in range(0, count, self._batch):
            await asyncio.gather(*[self._append_one() for _ in range(min(self._batch, count - start))])

    def _append_one(self) -> Awaitable[str]:
        members = {"to": "reader1234@example.com", "subject": "Hello", "text": TEXT}
        position: Awaitable[str] = self._log.append(Event(new_id("example.com"), "email_requested", members), new=True)
        return position

    async def consume(self, count: int, consumer: str = "reader") -> None:
        while count > 0:
            claimed = await self._log.claim(consumer, min(self._batch, count))
            if not claimed:
                raise RuntimeError(f"{count} events are missing")
            if not all(await self._log.commit_many(claimed)):
                raise RuntimeError("a lease was lost")
            count -= len(claimed)

    async def plain(self, count: int) -> None:
        """Plain commands for comparison: add the same bytes to a list and the same ids to a hash, and read the list."""
        keys = [f"lab:plain:{kind}" for kind in ("events", "ids")]
        for start in range(0, count, self._batch):
            ids = [new_id("example.com") for _ in range(self._batch)]
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.rpush(keys[0], *[f"{i} {TEXT} {'x' * 120}" for i in ids])
            pipeline.hset(keys[1], mapping=dict.fromkeys(ids, start))
            pipeline.lrange(keys[0], start, start + self._batch - 1)
            await pipeline.execute()
        await self._redis.unlink(*keys)

    async def measure(self, count: int, work: Callable[[int], Awaitable[None]]) -> Facts:
        """Events per second, and Redis's own CPU time for each in µs. First waits until no AOF rewrite is running."""
        while (await self._redis.info("persistence"))["aof_rewrite_in_progress"]:  # noqa: ASYNC110  another process
            await asyncio.sleep(POLL_SECONDS)
        before, started = await self._cpu_seconds(), time.perf_counter()
        await work(count)
        seconds = time.perf_counter() - started
        redis_us = (await self._cpu_seconds() - before) / count * 1e6
        return {"rate": count / seconds, "redis_us": redis_us}

    async def _cpu_seconds(self) -> float:
        info = await self._redis.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    async def forget_old_ids(self) -> None:
        """Delete the ids of sealed partitions, which expire a minute later anyway.

        The lab fills the log so fast that otherwise all of them would expire at once, during a measurement.
        """
        async for key in self._redis.scan_iter("eventlog:ids:*", count=1000):
            await self._redis.unlink(key)
        while (await self._redis.info("memory"))["lazyfree_pending_objects"]:  # noqa: ASYNC110  another process
            await asyncio.sleep(POLL_SECONDS)

    async def bytes_of_keys(self) -> tuple[int, int]:
        """The memory of all keys of the log, and of those that store ids for a minute."""
        total = ids = 0
        async for key in self._redis.scan_iter("eventlog:*", count=1000):
            size = await self._redis.memory_usage(key, samples=0) or 0
            total += size
            ids += size if key.startswith(b"eventlog:ids:") else 0
        return total, ids


async def rate(load: LogLoad, count: int) -> Facts:
    await load.append(1000)
    await load.consume(1000)
    appending = await load.measure(count, load.append)
    total, ids = (size / (count + 1000) for size in await load.bytes_of_keys())
    consuming = await load.measure(count, load.consume)
    memory = {"bytes_per_event": total - ids, "bytes_of_ids": ids}
    return {"appending": appending, "consuming": consuming, **memory}


async def curve(load: LogLoad, log: Any, sizes: list[int]) -> list[Facts]:
    """For each size of the log, the cost of an event. `end` is a consumer at the end of the log, `middle` one that is
    replayed from its middle. Each figure is the median of SAMPLES samples.
    """
    points, appended = [], 0
    await log.claim("reader", 1)
    for size in sizes:
        await load.append(size - appended)
        await load.forget_old_ids()
        found: dict[str, list[Facts]] = {"appending": [], "end": [], "middle": [], "plain": []}
        for _ in range(SAMPLES):
            found["plain"].append(await load.measure(SAMPLE, load.plain))
            await log.replay("reader", END)
            found["appending"].append(await load.measure(SAMPLE, load.append))
            found["end"].append(await load.measure(SAMPLE, load.consume))
            partitions = await log.partitions()
            middle = partitions[len(partitions) // 2]
            await log.replay("reader", (middle.opened + middle.last) / 2)
            few = min(SAMPLE, (await log.lag("reader")).waiting)
            found["middle"].append(await load.measure(few, load.consume))
        points.append({"events": size} | {name: medians_of(facts) for name, facts in found.items()})
        appended = size + SAMPLES * SAMPLE
    return points


def medians_of(found: list[Facts]) -> Facts:
    return {name: median(facts[name] for facts in found) for name in found[0]}


async def main(options: argparse.Namespace) -> Facts:
    async with (
        redis_client(read_settings().redis, answer_seconds=60.0) as redis,
        CLASSES[options.log](redis, LEASE_SECONDS) as log,
    ):
        load = LogLoad(log, redis, options.batch)
        if options.sizes:
            return {"points": await curve(load, log, options.sizes)}
        return await rate(load, options.count)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The event log of strategy 6.")
    parser.add_argument("log", choices=list(CLASSES))
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=1000, help="events that are appended or claimed together")
    parser.add_argument("--sizes", type=int, nargs="*", help="measure with each of these numbers of events in the log")
    return parser.parse_args()


if __name__ == "__main__":
    print(json.dumps(uvloop.run(main(parse()))))
