"""What JetStream does not store about an event that is tried again. It counts only deliveries."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from .errors import LogError
from .events import Claimed
from .nats_bucket import Bucket
from .nats_client import ANSWER_SECONDS

READ_SECONDS = 1.0  # meanwhile the other events of a claim wait


@dataclass
class Tries:
    untried: int = 0
    """Deliveries that were not attempts."""
    failures: int = 0
    alone: int = 0
    """How many times the event was handled alone without a result: each time it may have killed its worker."""
    due: float = 0.0
    """When the next attempt is due: unix seconds."""
    pause: float = 0.0
    """How many seconds before `due` the attempt failed."""

    def left(self) -> float:
        """The seconds until the next attempt is due. If the clock has been set back, it is due now."""
        left = self.due - time.time()
        return left if left <= self.pause else 0.0


class TriesNotes:
    """The keys `tries.CONSUMER.NUMBER` of the bucket for notes. Raises LogError."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._written: set[str] = set()
        self._uncounted: dict[str, int] = {}  # key -> deliveries that were not attempts, not stored yet

    async def of(self, consumer: str, position: str, limit: float = ANSWER_SECONDS) -> Tries:
        found = await self._bucket.get(_key(consumer, position), limit)
        return Tries(**orjson.loads(found[0])) if found else Tries()

    async def of_delivery(self, consumer: str, position: str, *, held: bool) -> Tries | None:
        """Returns None if this delivery is not an attempt, because this process already holds the event or because the
        bucket does not answer. The event is then delivered again when its lease ends.
        """
        key = _key(consumer, position)
        uncounted = self._uncounted.get(key, 0) + held
        try:
            tries = await self.of(consumer, position, READ_SECONDS)
            if uncounted:
                tries.untried += uncounted
                await self.put(consumer, position, tries)
        except LogError:
            self._uncounted[key] = uncounted + (not held)
            return None
        self._uncounted.pop(key, None)
        return None if held else tries

    async def put(self, consumer: str, position: str, tries: Tries) -> None:
        key = _key(consumer, position)
        self._written.add(key)
        await self._bucket.put(key, orjson.dumps(tries))

    async def count_untried(self, consumer: str, position: str, *, alone: bool = False) -> None:
        tries = await self.of(consumer, position)
        tries.untried += 1
        tries.alone -= alone
        await self.put(consumer, position, tries)

    async def count_alone(self, consumer: str, position: str) -> None:
        tries = await self.of(consumer, position)
        tries.alone += 1
        await self.put(consumer, position, tries)

    async def count_failure(self, claimed: Claimed, seconds: float, failures: int) -> None:
        """Store when the event is due, because a killed server forgets the delay of a nak."""
        tries = await self.of(claimed.consumer, claimed.position)
        tries.failures, tries.due, tries.pause = failures, time.time() + seconds, seconds
        tries.alone -= claimed.alone
        await self.put(claimed.consumer, claimed.position, tries)

    async def forget(self, claimed: Sequence[Claimed]) -> None:
        """These events are handled: forget them."""
        keys = {_key(one.consumer, one.position): one.attempts for one in claimed}
        noted = [key for key, attempts in keys.items() if attempts > 1 or key in self._written]
        self._written.difference_update(noted)
        for key in keys:
            self._uncounted.pop(key, None)
        await asyncio.gather(*[self._bucket.delete(key) for key in noted])


def _key(consumer: str, position: str) -> str:
    return f"tries.{consumer}.{position.partition('-')[2]}"
