"""A Redis with faults for `doctor` to find."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from asynckit.redis_client import redis_client
from resque import doctor as doctor_module
from resque import keys as keys_module
from tests.support.servers import Valkey

OURS = "host.0123abcd:7+1:q"

RUBY = "host:7:q"

JOB = '{"class":"c","args":[12345678901234567890123,1.0]}'

WORKING = f'{{"run_at":"2026-11-21T07:39:33Z","worker":"host:7","queue":"q","payload":{JOB}}}'

UNSERVED = "jobs wait here, and no live worker serves this queue"

FAILURE = json.dumps({"failed_at": "2026/11/21 07:39:33 UTC", "backtrace": [], "worker": RUBY, "queue": "q"})


@dataclass
class Ward:
    """The test's own namespace and its doctor."""

    redis: Any
    keys: Any
    doctor: Any

    async def found(self) -> list[tuple[str, str]]:
        """All findings and their remedies, except queues without a worker, which most tests have."""
        findings = [(finding.what, finding.remedy) for finding in await self.doctor.examine()]
        return [finding for finding in findings if finding[0] != UNSERVED]

    async def unserved(self) -> list[str]:
        return [finding.key for finding in await self.doctor.examine() if finding.what == UNSERVED]

    async def repair(self) -> None:
        for finding in await self.doctor.examine():
            if finding.repair:
                assert await finding.repair(), finding


@asynccontextmanager
async def ward_of(valkey: Valkey, namespace: str) -> AsyncIterator[Ward]:
    async with redis_client(valkey.url) as redis:
        keys = keys_module.Keys(namespace)
        yield Ward(redis, keys, doctor_module.Doctor(redis, keys))


def ago(seconds: float) -> float:
    return time.time() - seconds


async def of_dead_worker(ward: Ward) -> None:
    await ward.redis.set(ward.keys.worker(OURS), WORKING)
    await ward.redis.sadd(ward.keys.workers, OURS)
