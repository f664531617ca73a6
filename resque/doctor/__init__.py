"""The doctor: do the keys still fit together, and does Redis keep what it has taken? Tells, and mends what is safe.

A program that changes two keys by two commands leaves half of the change behind when it dies between them. A repair
never throws away a job: a job that no worker holds goes to the failed list. Each repair checks its keys again in the
transaction that changes them, and does nothing if they have changed since.

This alone looks through everything (walk.py): it takes its time, and holds up nobody for long.
"""

from collections.abc import AsyncIterator

from redis.asyncio import Redis

from asynckit.durability import shortcomings

from ..keys import Keys
from . import contents, schedule, workers
from .finding import Finding
from .scan import Examination

__all__ = ["Doctor", "Finding"]


class Doctor:
    """Methods raise RedisError when Redis does not answer."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def examine(self) -> list[Finding]:
        """All that is wrong; [] when nothing is."""
        examination = Examination(self._redis, self._keys)
        await examination.walk()
        findings = [Finding(text, "the server's settings") for text in await shortcomings(self._redis)]
        for check in (_types, workers.examine, schedule.examine, contents.examine):
            findings += [finding async for finding in check(examination)]
        return findings


async def _types(examination: Examination) -> AsyncIterator[Finding]:
    for key, (found, wanted) in sorted(examination.seen.wrong.items()):
        yield Finding(f"is a {found}, and should be a {wanted}", examination.name(key))
