"""Your file: a new consumer of strategy 6, which counts the emails of each domain. The consumer `email` runs already.

exercise:sent   hash   domain -> how many emails were requested for it

`consumer.py` handles new events until it is stopped. `consumer.py replay` resets the counts and ends: the next run of
`consumer.py` counts all events again.
"""

import asyncio
import os
import sys
from typing import Any

from asynckit.redis_client import redis_client
from eventlog.events import Claimed
from eventlog.partitions import PartitionedLog

NAME = "email"
LEASE_SECONDS = 2.0


async def count(redis: Any, claimed: Claimed) -> None:
    domain = claimed.event().data["to"].rpartition("@")[2]
    await redis.hincrby("exercise:sent", domain, 1)


async def consume(redis: Any, log: PartitionedLog) -> None:
    print("ready", flush=True)
    while True:
        for claimed in await log.claim(NAME, limit=10, wait=1.0):
            await log.commit(claimed)
            await count(redis, claimed)


async def main() -> None:
    async with redis_client(os.environ["REDIS_URL"]) as redis, PartitionedLog(redis, LEASE_SECONDS) as log:
        if sys.argv[1:] == ["replay"]:
            print("not written yet", flush=True)
        else:
            await consume(redis, log)


asyncio.run(main())
