"""`python -m lab.load.log lua|streams`: the event log of strategy 6 in the Redis of REDIS_URL, from one process.

rate    append so many events in batches, then claim and commit them in batches
curve   fill the log up to each size in turn, and measure there: appending, consuming at the end, and in the middle

Events are as the web server appends them, with 200 bytes of text. Prints JSON: events a second, and the CPU time that
Redis spends on an event; bytes of memory per event, all keys of the log together.
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
LOOK_SECONDS = 0.5

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
        """What plain commands cost there: as many bytes into a list, as many ids into a hash, and out again."""
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
        """Events a second, and Redis's own CPU time for each in µs. Waits while Redis writes its file anew."""
        while (await self._redis.info("persistence"))["aof_rewrite_in_progress"]:  # noqa: ASYNC110  another process
            await asyncio.sleep(LOOK_SECONDS)
        before, started = await self._cpu_seconds(), time.perf_counter()
        await work(count)
        seconds = time.perf_counter() - started
        redis_us = (await self._cpu_seconds() - before) / count * 1e6
        return {"rate": count / seconds, "redis_us": redis_us}

    async def _cpu_seconds(self) -> float:
        info = await self._redis.info("cpu")
        return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])

    async def let_a_minute_pass(self) -> None:
        """Forget the ids of sealed partitions, as Redis does a minute later: a log that was filled in one go would
        otherwise be measured while it forgets all of them at once."""
        async for key in self._redis.scan_iter("eventlog:ids:*", count=1000):
            await self._redis.unlink(key)
        while (await self._redis.info("memory"))["lazyfree_pending_objects"]:  # noqa: ASYNC110  another process
            await asyncio.sleep(LOOK_SECONDS)

    async def bytes_of_keys(self) -> tuple[int, int]:
        """The memory of all keys of the log; and of those that remember ids for a minute."""
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
    """`middle` is a consumer that has been sent to the middle of what is there, `end` one that has read all of it.

    Each is the median of several.
    """
    points, there = [], 0
    await log.claim("reader", 1)
    for size in sizes:
        await load.append(size - there)
        await load.let_a_minute_pass()
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
        points.append({"events": size} | {name: middle_of(facts) for name, facts in found.items()})
        there = size + SAMPLES * SAMPLE
    return points


def middle_of(found: list[Facts]) -> Facts:
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
    parser.add_argument("--sizes", type=int, nargs="*", help="measure a curve: with so many events in the log")
    return parser.parse_args()


if __name__ == "__main__":
    print(json.dumps(uvloop.run(main(parse()))))
