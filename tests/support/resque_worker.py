"""A worker as a separate program, which can be killed, for the jobs that Python and JavaScript both have.

python -m tests.support.resque_worker URL NAMESPACE LEASE_SECONDS

Its jobs append their arguments to the list `NS:notes`, like those of tests/support/interop/peer.mjs. `hold` runs until
the key `NS:release` exists.
"""

import asyncio
import json
import sys
from typing import Any

from redis.asyncio import Redis

import resque
from common.processes.process import run, stop_requested
from resque import keys as keys_module


class Jobs:
    def __init__(self, redis: Redis, namespace: str) -> None:
        self._redis: Any = redis
        self._keys = keys_module.Keys(namespace)

    async def note(self, *args: Any) -> None:
        await self._redis.rpush(self._keys.key("notes"), json.dumps({"by": "python", "args": args}))

    async def fail(self, text: str) -> None:
        raise resque.Permanent(text)

    async def flaky(self, *_: Any) -> None:
        await self.note("flaky")
        raise ValueError("not today")

    async def nap(self, number: int) -> None:
        await asyncio.sleep(0.005)
        await self.note(number)

    async def hold(self, *args: Any) -> None:
        await self.note("holding")
        while not await self._redis.exists(self._keys.key("release")):  # noqa: ASYNC110  another process sets it
            await asyncio.sleep(0.01)
        await self.note("released", *args)

    @property
    def definitions(self) -> Any:
        performs = {name: getattr(self, name) for name in ("note", "fail", "flaky", "nap", "hold")}
        jobs = {name: resque.Definition(perform, attempts=2, base_seconds=0.01) for name, perform in performs.items()}
        return jobs | {"sendEmail": jobs["note"]}


async def work(url: str, namespace: str, lease_seconds: str) -> None:
    async with resque.open_connections(url) as connections:
        definitions = Jobs(connections.commands, namespace).definitions
        scaling = resque.Scaling(4, 4)
        options: dict[str, Any] = {"namespace": namespace, "lease_seconds": float(lease_seconds), "scaling": scaling}
        await resque.Worker(connections, ["q"], definitions, **options).run(stop_requested)


if __name__ == "__main__":
    run(work(*sys.argv[1:]))
