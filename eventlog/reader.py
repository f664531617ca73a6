"""The consumer's side of the partitions: its way through the chain, as one process sees it.

The way begins at the consumer's cursor. In its last stretch are the new events; the others are partitions in which
something is pending still, and which are looked into when that is due.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from .counts import Counts
from .events import Claimed
from .keys import PARTITIONS, as_number, cursor, key, keys, leases, numbers
from .scripts import Scripts

LOOK_SECONDS = 1.0  # between two looks whether somebody has moved the cursor

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Stretch:
    """A partition that this process does not know to be done."""

    number: int
    first: int
    index: int = 0  # where the consumer begins in it: not 0 in the one to which a replay has gone
    look: float = 0.0  # when something may be due in it, if anything is pending: time.monotonic()
    lost: int = 0  # the token of the first claim in it whose answer was lost, since one came


class Reader:
    def __init__(
        self,
        redis: Redis,
        scripts: Scripts,
        counts: Counts,
        consumer: str,
        owner: str,
        lease_ms: int,
        tokens: Iterator[int],
    ) -> None:
        self.hints = 0  # those that had come when this process looked last
        self._redis: Any = redis
        self._scripts = scripts
        self._counts = counts
        self._consumer = consumer
        self._owner = owner
        self._lease_ms = lease_ms
        self._tokens = tokens
        self._epoch = 0
        self._cursor = -1  # the partition to which the cursor has been moved
        self._stretches: list[Stretch] = []
        self._look = 0.0

    def look_now(self) -> None:
        """The cursor may have been moved."""
        self._look = 0.0

    def seconds_until_due(self) -> float:
        now = time.monotonic()
        return min([stretch.look - now for stretch in self._stretches if stretch.look], default=LOOK_SECONDS)

    def nothing_pending_in(self, partition: int) -> None:
        """The last one in a partition that was left behind is done: the cursor may move on."""
        for stretch in self._stretches:
            if stretch.number == partition:
                stretch.look = 0.0

    async def claim(self, limit: int) -> list[Claimed] | None:
        """None when the consumer has no cursor: somebody has emptied Redis."""
        if time.monotonic() >= self._look and not await self._read_cursor():
            return None
        claimed: list[Claimed] = []
        try:
            await self._claim_along(claimed, limit)
            await self._advance()
        except RedisError:
            if not claimed:
                raise
        return claimed  # also what was claimed before an error: nobody else would handle it before its lease ends

    async def _claim_along(self, claimed: list[Claimed], limit: int) -> None:
        now = time.monotonic()
        for stretch in self._stretches[:-1]:
            if now >= stretch.look and _room(claimed, limit) and stretch in self._stretches:
                claimed += await self._claim_in(stretch, limit - len(claimed))
        last = None
        while self._stretches and self._stretches[-1] is not last and _room(claimed, limit):
            last = self._stretches[-1]
            claimed += await self._claim_in(last, limit - len(claimed))

    async def _claim_in(self, stretch: Stretch, limit: int) -> list[Claimed]:
        """Claim in one partition, and go on to the next one when there is nothing more to come in it."""
        of_one = keys(stretch.number, "partitions", "state", "counters") + leases(stretch.number, self._consumer)
        now, token = time.monotonic(), next(self._tokens)
        where = (self._consumer, self._epoch, stretch.index)
        who = (self._owner, self._lease_ms, limit, token, stretch.lost)
        try:
            what, *reply = await self._scripts.run("claim", of_one, *where, *who)
        except RedisError:
            stretch.lost = stretch.lost or token
            raise
        stretch.lost = 0
        match what:
            case b"stale":  # a replay has begun a new epoch: read the cursor again
                self._stretches.clear()
                self.look_now()
                return []
            case b"trimmed":
                lost, following, first = reply
                self._leave(stretch, Stretch(int(following), first), lost)
                return []
            case b"missing":
                await self._look_again(stretch)
                return []
        following, first, new, pending, due, alone, *words = reply
        stretch.look = now + due / 1000 if pending else 0.0
        if following and not new:
            if stretch is self._stretches[-1]:
                self._stretches.append(Stretch(int(following), first))
            if not pending:
                self._stretches.remove(stretch)
        until = now + self._lease_ms / 1000
        triples = iter(words)
        return [
            Claimed(self._consumer, f"{stretch.number}-{index}", attempts, element, until, bool(alone), token=token)
            for index, attempts, element in zip(triples, triples, triples, strict=True)
        ]

    async def _look_again(self, missing: Stretch) -> None:
        """A partition that is not there: it is not open yet, or was trimmed long ago, or Redis has lost its tail.

        So what this process remembers may be wrong: the next time it begins at the cursor again. When the cursor itself
        stands there, it was trimmed so long ago that only the index of partitions knows how it goes on.
        """
        self._stretches.clear()
        if await self._read_cursor() and self._stretches[0].number == missing.number:
            await self._find_what_is_left(self._stretches[0])
        else:
            self._stretches.clear()
            self.look_now()

    async def _find_what_is_left(self, stretch: Stretch) -> None:
        later = await self._redis.zrangebyscore(PARTITIONS, f"({stretch.number}", "+inf", start=0, num=1)
        if not (found := numbers(later)):
            self._stretches.clear()
            return
        first = as_number(await self._redis.hget(key(found[0], "state"), "first"))
        lost = first - stretch.first - stretch.index if stretch.number else 0
        self._leave(stretch, Stretch(found[0], first), max(0, lost))

    def _leave(self, stretch: Stretch, following: Stretch, lost: int) -> None:
        if stretch is self._stretches[-1]:
            self._stretches.append(following)
        self._stretches.remove(stretch)
        if lost:
            log.warning("%s was overtaken: %d events were trimmed before it had done them", self._consumer, lost)
            self._counts.add(self._consumer, "overtaken", lost)

    async def _read_cursor(self) -> bool:
        """False when there is none."""
        words = await self._redis.hmget(cursor(self._consumer), "partition", "first", "index", "epoch")
        if None in words:
            self._stretches.clear()
            return False
        self._look = time.monotonic() + LOOK_SECONDS
        partition, first, index, epoch = map(int, words)
        begin = Stretch(partition, first, index)
        if epoch != self._epoch or partition < self._cursor or not self._stretches:
            # At the beginning, after a replay; or Redis has lost its tail, for else a cursor never moves back.
            self._epoch, self._stretches = epoch, [begin]
        else:  # another process may have done what this one still means to look at
            self._stretches = [s for s in self._stretches if s.number >= partition] or [begin]
        self._cursor = partition
        return True

    async def _advance(self) -> None:
        """All before the first stretch is done."""
        if self._stretches and self._stretches[0].number > self._cursor:
            first = self._stretches[0]
            await self._scripts.run("advance", [cursor(self._consumer)], self._epoch, first.number, first.first)
            self._cursor = first.number


def _room(claimed: Sequence[Claimed], limit: int) -> bool:
    return len(claimed) < limit and not (claimed and claimed[-1].alone)
