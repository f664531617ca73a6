"""Your file: a new consumer of strategy 6, which counts the emails of each domain. The consumer `email` runs already.

exercise:sent      hash   domain -> how many emails were requested for it
exercise:handled   set    the ids of the events that have been counted

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

NAME = "domains"
LEASE_SECONDS = 2.0
COUNT_ONCE = """
if redis.call('SADD', KEYS[1], ARGV[1]) == 1 then
  redis.call('HINCRBY', KEYS[2], ARGV[2], 1)
end
"""


async def count(redis: Any, claimed: Claimed) -> None:
    event = claimed.event()
    domain = event.data["to"].rpartition("@")[2]
    await redis.eval(COUNT_ONCE, 2, "exercise:handled", "exercise:sent", event.id, domain)


async def consume(redis: Any, log: PartitionedLog) -> None:
    print("ready", flush=True)
    while True:
        for claimed in await log.claim(NAME, limit=10, wait=1.0):
            await count(redis, claimed)
            await log.commit(claimed)


async def main() -> None:
    async with redis_client(os.environ["REDIS_URL"]) as redis, PartitionedLog(redis, LEASE_SECONDS) as log:
        if sys.argv[1:] == ["replay"]:
            await redis.delete("exercise:handled", "exercise:sent")
            await log.replay(NAME, "beginning")
        else:
            await consume(redis, log)


asyncio.run(main())
