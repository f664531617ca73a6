"""The doctor: checks that the keys are consistent and that Redis's settings are safe, and repairs what is safe to
repair.

A program that changes two keys with two commands and dies in between leaves them inconsistent. A repair never discards
a job: a job that no worker holds goes to the failed list. Each repair checks its keys again in the transaction that
changes them, and does nothing if they have changed in the meantime.

Only the doctor reads all keys (scan.py). It takes long on a large Redis, but never blocks it for long.
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
        """All problems found; [] if there are none."""
        examination = Examination(self._redis, self._keys)
        await examination.walk()
        findings = [Finding(text, "the server's settings") for text in await shortcomings(self._redis)]
        for check in (_types, workers.examine, schedule.examine, contents.examine):
            findings += [finding async for finding in check(examination)]
        return findings


async def _types(examination: Examination) -> AsyncIterator[Finding]:
    for key, (found, wanted) in sorted(examination.seen.wrong.items()):
        yield Finding(f"is a {found}, and should be a {wanted}", examination.name(key))
