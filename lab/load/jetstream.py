"""`python -m lab.load.jetstream`: the log on JetStream, in an embedded nats-server of its own, from one process.

Prints JSON: appends a second in batches of 100; claims and commits a second; milliseconds from an append to an idle
consumer that waits for it (median and 99th percentile); bytes on disk per event. Events are those of `lab.load.log`.
"""

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import uvloop

from common.services.service import Service
from common.settings import Settings
from eventlog.jetstream import JetStreamLog
from lab.load.log import Facts, LogLoad

LEASE_SECONDS = 60.0
WAKE_UPS = 300


async def rates(url: str, count: int, batch: int) -> Facts:
    async with JetStreamLog(url, LEASE_SECONDS) as log:
        load = LogLoad(log, None, batch)
        await load.append(1000)
        await load.consume(1000)
        started = time.perf_counter()
        await load.append(count)
        appended = time.perf_counter()
        [stream] = await log.partitions()
        await load.consume(count)
        consumed = time.perf_counter()
        return {
            "appends": count / (appended - started),
            "claims_and_commits": count / (consumed - appended),
            "bytes_per_event": stream.bytes / stream.length,
            "idle_ms": await wake_ups(log, load),
        }


async def wake_ups(log: JetStreamLog, load: LogLoad) -> Facts:
    times = []
    for _ in range(WAKE_UPS):
        waiting = asyncio.create_task(log.claim("reader", 1, wait=5.0))
        await asyncio.sleep(0.01)
        before = time.perf_counter()
        await load.append(1)
        [claimed] = await waiting
        times.append(1000 * (time.perf_counter() - before))
        await log.commit(claimed)
    return {"median": median(times), "p99": quantiles(times, n=100)[98]}


def main() -> None:
    parser = argparse.ArgumentParser(description="The log on JetStream.")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.model_construct(data_dir=Path(folder), nats_port=0)  # reads no environment
        with Service(settings, "nats") as service:
            url = f"nats://127.0.0.1:{service.ports['NATS_PORT']}"
            print(json.dumps(uvloop.run(rates(url, options.count, options.batch))))


if __name__ == "__main__":
    main()
