"""The consumer's side of the partitions: claims along the chain, from the consumer's cursor to the open partition.

A reader visits the partitions in which the consumer is not done, oldest first. New events are in the last of them. In
the others events are pending, and the reader visits them again when the next of these events is due.

In a cluster the partitions, their list and the cursor are on several nodes. When one of these nodes fails, it may lose
its last writes, and the others keep what was written after them. So a reader there does not rely on a seal alone:

- A partition is not sealed, but a later one is listed: the seal is lost, and the reader seals the partition again.
- A partition is listed between this one and the next one that its seal names: the seal was lost, and a producer that
  did not know of this has sealed the partition a second time. The reader visits the listed partition first.
- A partition has seen a later epoch than the cursor has: a replay is lost. The reader raises the cursor's epoch.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from asynckit.bytes_redis import BytesRedis
from asynckit.redis_client import CALL_ERRORS

from .counts import Counts
from .events import Claimed
from .keys import PARTITIONS, as_number, cursor, key, keys, leases, numbers
from .scripts import Scripts

LOOK_SECONDS = 1.0  # how often a reader checks whether another process has moved the cursor

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Unfinished:
    """A partition in which, as far as this process knows, the consumer is not done."""

    number: int
    first: int
    index: int = 0  # where the consumer begins in it; not 0 after a replay to an event of this partition
    due: float = 0.0  # when a pending event may be due: time.monotonic(); 0 if none is pending
    lost: int = 0  # the token of the first claim whose answer was lost, until an answer arrives


class Reader:
    def __init__(
        self,
        redis: BytesRedis,
        scripts: Scripts,
        counts: Counts,
        consumer: str,
        owner: str,
        lease_ms: int,
        tokens: Iterator[int],
        *,
        spread: bool = False,
    ) -> None:
        """`spread`: the keys are on several nodes of a cluster."""
        self.hints = 0  # how many hints had arrived before the last claim
        self._redis = redis
        self._scripts = scripts
        self._counts = counts
        self._consumer = consumer
        self._owner = owner
        self._lease_ms = lease_ms
        self._tokens = tokens
        self._spread = spread
        self._epoch = 0
        self._latest_epoch = 0  # that a partition has seen
        self._cursor = -1  # the partition of the consumer's cursor
        self._unfinished: list[Unfinished] = []
        self._next_look = 0.0  # when to read the cursor again: time.monotonic()

    def look_now(self) -> None:
        """Make the next claim read the cursor, which may have been moved."""
        self._next_look = 0.0

    def seconds_until_due(self) -> float:
        now = time.monotonic()
        return min([unfinished.due - now for unfinished in self._unfinished if unfinished.due], default=LOOK_SECONDS)

    def nothing_pending_in(self, partition: int) -> None:
        """The last pending event of this partition is committed: the next claim visits it and moves the cursor on."""
        for unfinished in self._unfinished:
            if unfinished.number == partition:
                unfinished.due = 0.0

    async def claim(self, limit: int) -> list[Claimed] | None:
        """Returns None if the consumer has no cursor, because Redis was emptied. Raises RedisError."""
        if time.monotonic() >= self._next_look and not await self._read_cursor():
            return None
        claimed: list[Claimed] = []
        try:
            await self._claim_along(claimed, limit)
            await self._advance()
        except CALL_ERRORS:
            if not claimed:
                raise
        return claimed  # after an error too: no other process can handle these events before their leases end

    async def _claim_along(self, claimed: list[Claimed], limit: int) -> None:
        now = time.monotonic()
        for unfinished in self._unfinished[:-1]:
            if now >= unfinished.due and _has_room(claimed, limit) and unfinished in self._unfinished:
                claimed += await self._claim_in(unfinished, limit - len(claimed))
        last = None
        while self._unfinished and self._unfinished[-1] is not last and _has_room(claimed, limit):
            last = self._unfinished[-1]
            claimed += await self._claim_in(last, limit - len(claimed))

    async def _claim_in(self, unfinished: Unfinished, limit: int) -> list[Claimed]:
        """Claim events of one partition. When it has no more new events and is sealed, add the next one."""
        now, token = time.monotonic(), next(self._tokens)
        what, *reply = await self._run_claim(unfinished, limit, token)
        match what:
            case b"stale":  # a replay has started a new epoch
                [self._latest_epoch] = reply
                self._unfinished.clear()
                self.look_now()
                return []
            case b"trimmed":
                lost, following, first = reply
                self._leave(unfinished, Unfinished(int(following), first), lost)
                return []
            case b"missing":
                await self._find_the_way(unfinished)
                return []
        following, first, new, pending, due, alone, *words = reply
        unfinished.due = now + due / 1000 if pending else 0.0
        if following and not new:
            if unfinished is self._unfinished[-1]:
                self._unfinished.append(await self._next(unfinished.number, int(following), first))
            if not pending:
                self._unfinished.remove(unfinished)
        return self._claims(unfinished, words, now + self._lease_ms / 1000, alone=bool(alone), token=token)

    async def _run_claim(self, unfinished: Unfinished, limit: int, token: int) -> Any:
        of_one = keys(unfinished.number, "partitions", "state", "counters") + leases(unfinished.number, self._consumer)
        where = (self._consumer, self._epoch, unfinished.index)
        who = (self._owner, self._lease_ms, limit, token, unfinished.lost)
        try:
            reply = await self._scripts.run("claim", of_one, *where, *who)
        except CALL_ERRORS:
            unfinished.lost = unfinished.lost or token
            raise
        unfinished.lost = 0
        return reply

    def _claims(
        self, unfinished: Unfinished, words: Sequence[Any], until: float, *, alone: bool, token: int
    ) -> list[Claimed]:
        triples = iter(words)
        return [
            Claimed(self._consumer, f"{unfinished.number}-{index}", attempts, element, until, alone, token=token)
            for index, attempts, element in zip(triples, triples, triples, strict=True)
        ]

    async def _next(self, number: int, following: int, first: int) -> Unfinished:
        """The partition after a sealed one: the one that the seal names, unless an earlier one is listed."""
        if self._spread and (listed := await self._listed_after(number)) is not None and listed < following:
            return Unfinished(listed, as_number(await self._redis.hget(key(listed, "state"), "first")))
        return Unfinished(following, first)

    async def _listed_after(self, number: int) -> int | None:
        found = await self._redis.zrangebyscore(PARTITIONS, f"({number}", "+inf", start=0, num=1)
        return next(iter(numbers(found)), None)

    async def _seal_again(self) -> None:
        """Seal the last partition if a later one is listed. It changes nothing if the seal has come in the meantime."""
        number = self._unfinished[-1].number
        if (listed := await self._listed_after(number)) is not None:
            await self._scripts.run("seal", keys(number, "partitions", "state"), listed)

    async def _find_the_way(self, missing: Unfinished) -> None:
        """A partition has no data: it is not open yet, its tombstone has expired, or Redis has lost its last writes.

        Because of the last case, this process forgets what it knows and begins at the cursor again. If the cursor
        itself is in the missing partition, only the list of partitions says where the log goes on. In a cluster that
        list may be newer than the lost writes.
        """
        if self._spread and await self._listed_after(missing.number) is not None:
            await self._skip_to_the_next(missing)
            return
        self._unfinished.clear()
        if await self._read_cursor() and self._unfinished[0].number == missing.number:
            await self._skip_to_the_next(self._unfinished[0])
        else:
            self._unfinished.clear()
            self.look_now()

    async def _skip_to_the_next(self, unfinished: Unfinished) -> None:
        listed = await self._listed_after(unfinished.number)
        if listed is None:
            self._unfinished.clear()
            return
        first = as_number(await self._redis.hget(key(listed, "state"), "first"))
        lost = first - unfinished.first - unfinished.index if unfinished.number else 0
        self._leave(unfinished, Unfinished(listed, first), max(0, lost))

    def _leave(self, unfinished: Unfinished, following: Unfinished, lost: int) -> None:
        if unfinished is self._unfinished[-1]:
            self._unfinished.append(following)
        self._unfinished.remove(unfinished)
        if lost:
            log.warning("%s was overtaken: %d events were trimmed before it handled them", self._consumer, lost)
            self._counts.add(self._consumer, "overtaken", lost)

    async def _read_cursor(self) -> bool:
        """Returns False if the consumer has no cursor."""
        words = await self._redis.hmget(cursor(self._consumer), "partition", "first", "index", "epoch")
        if None in words:
            self._unfinished.clear()
            return False
        self._next_look = time.monotonic() + LOOK_SECONDS
        partition, first, index, epoch = (int(word or 0) for word in words)
        if epoch < self._latest_epoch:
            await self._scripts.run("renew", [cursor(self._consumer)], self._latest_epoch)
            epoch = self._latest_epoch
        begin = Unfinished(partition, first, index)
        if epoch != self._epoch or partition < self._cursor or not self._unfinished:
            # This is the first look, or a replay has moved the cursor, or Redis has lost its last writes.
            self._epoch, self._unfinished = epoch, [begin]
        else:  # other processes of this consumer may have finished the first partitions
            self._unfinished = [one for one in self._unfinished if one.number >= partition] or [begin]
        self._cursor = partition
        if self._spread:
            await self._seal_again()
        return True

    async def _advance(self) -> None:
        """Move the cursor to the first unfinished partition, because every event before it is done."""
        if self._unfinished and self._unfinished[0].number > self._cursor:
            first = self._unfinished[0]
            await self._scripts.run("advance", [cursor(self._consumer)], self._epoch, first.number, first.first)
            self._cursor = first.number


def _has_room(claimed: Sequence[Claimed], limit: int) -> bool:
    return len(claimed) < limit and not (claimed and claimed[-1].alone)
