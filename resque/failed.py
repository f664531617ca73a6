"""The failed list: read the failed jobs and their errors, retry or remove them.

Any program may have written a record, even an invalid one; each is shown as far as it can be read. A record is
identified by its exact text (items.py), not by its index, which changes when other records are removed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from redis.asyncio import Redis

from asynckit.bytes_redis import bytes_redis

from .answers import or_empty
from .dates import moment_of
from .items import MOST_BYTES, Item, Items
from .keys import Keys
from .scripts import Scripts
from .states import text_of
from .wire import UNREADABLE, BadJob, Job, exact_member, job_of

ID_LENGTH = 16  # hex digits of the SHA-1
AT_ONCE = 100  # records in one call: a script blocks all other clients of Redis
# The exceptions of jobs whose worker died: as ours, Ruby's and Node's workers write them.
DEATHS = {"WorkerLost", "Resque::DirtyExit", "Resque::PruneDeadWorkerDirtyExit", "Worker Timeout (killed manually)"}


class NotThere(Exception):
    """The job does not exist, or no longer: another program may have moved or removed it."""


class CannotRequeue(Exception):
    """The job cannot be retried; the message says why."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One record."""

    number: int
    """1 is the oldest."""
    id: str
    """The first ID_LENGTH hex digits of the SHA-1 of its text."""
    size: int
    """Bytes."""
    text: bytes
    """The record, or its beginning if it is large."""
    failed_at: float | None
    """Unix seconds; None if there is no date in a known format."""
    exception: str
    error: str
    backtrace: tuple[str, ...]
    worker: str
    queue: str
    job: Job | None
    """`raw` is its exact JSON."""
    flaw: str
    """Why it cannot be retried; "" if it can."""
    retried: bool = False
    """Ruby has retried it: Ruby keeps the record in the list and adds `retried_at`. You can remove such a record."""

    @property
    def whole(self) -> bool:
        return len(self.text) == self.size


class FailedList:
    """Methods raise RedisError when Redis does not answer."""

    def __init__(self, redis: Redis, keys: Keys, scripts: Scripts | None = None) -> None:
        self._redis = bytes_redis(redis)
        self._keys = keys
        self._scripts = scripts or Scripts(redis)
        self._items = Items(redis, self._scripts)

    async def count(self) -> int:
        return await self._items.count(self._keys.failed)

    async def elsewhere(self) -> dict[str, int]:
        """The lists of Ruby's RedisMultiQueue, one for each queue, with the number of failures in each."""
        found = await or_empty(self._redis.smembers(self._keys.failed_queues), set())
        names = sorted(text_of(name) for name in found)
        pipeline = self._redis.pipeline(transaction=False)
        for name in names:
            pipeline.llen(self._keys.key(name))
        lengths = await pipeline.execute(raise_on_error=False)
        return {name: length for name, length in zip(names, lengths, strict=True) if isinstance(length, int) and length}

    async def list(self, before: int | None = None, count: int = 20) -> list[Failure]:
        """The failed jobs, the newest first. `before`: only those with a smaller number, so that pages do not shift
        when more jobs fail.
        """
        last = await self.count() if before is None else max(0, before - 1)
        first = max(0, last - count)
        return [read_failure(item) for item in reversed(await self._items.read(self._keys.failed, first, last - first))]

    async def numbered(self, number: int) -> Failure:
        """The failed job with this number. Raises NotThere."""
        found = await self._items.read(self._keys.failed, number - 1, 1) if number > 0 else []
        if not found:
            raise NotThere(f"there is no failed job number {number}")
        return read_failure(found[0])

    async def find(self, failure_id: str, near: int | None = None) -> Failure:
        """The complete record with this id, which last had the number `near`. Raises NotThere."""
        place = await self.count() if near is None else near
        if (item := await self._items.find(self._keys.failed, failure_id, place - 1)) is None:
            raise NotThere(f"there is no failed job {failure_id}")
        return read_failure(item)

    async def requeue(self, failure_id: str, near: int | None = None) -> Failure:
        """Put its job at the end of the queue that the record names. Raises NotThere or CannotRequeue."""
        failure = await self.find(failure_id, near)
        [outcome] = await self._requeue([failure], from_head=failure.number <= await self.count() / 2)
        _check(outcome, failure)
        return failure

    async def requeue_all(self) -> tuple[int, int]:
        """Retry all. Returns how many were requeued, and how many stay: already retried, or they cannot be retried."""
        done = left = 0
        # A fixed number of rounds: jobs that fail again meanwhile must not cause an endless loop.
        for _ in range(0, await self.count(), AT_ONCE):
            records = [read_failure(item) for item in await self._items.read(self._keys.failed, left, AT_ONCE)]
            outcomes = [*await self._requeue([f for f in records if f.whole], from_head=True)]
            for large in (f for f in records if not f.whole):  # one at a time: together they might not fit into memory
                outcomes += await self._requeue([await self._reread(large)], from_head=True)
            done += outcomes.count(1)
            left += len(outcomes) - outcomes.count(1) - outcomes.count(0)
        return done, left

    async def remove(self, failure_id: str, near: int | None = None) -> Failure:
        """Remove a record. Raises NotThere."""
        failure = await self.find(failure_id, near)
        end = 1 if failure.number <= await self.count() / 2 else -1
        if not await self._redis.lrem(self._keys.failed, end, failure.text):
            raise NotThere(f"there is no failed job {failure_id}")
        return failure

    async def remove_all(self) -> int:
        """Remove all records; returns how many. UNLINK frees their memory in the background."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.llen(self._keys.failed).unlink(self._keys.failed)
            length, _ = await pipeline.execute()
        return int(length)

    async def _reread(self, failure: Failure) -> Failure:
        """The complete record; the argument itself if the record has been removed meanwhile."""
        try:
            return await self.find(failure.id, failure.number)
        except NotThere:
            return failure

    async def _requeue(self, failures: Sequence[Failure], *, from_head: bool) -> Sequence[int]:
        """For each: 1 if requeued, 0 if it is gone, -1 if its queue's key is not a list, -2 if it has no valid job."""
        keys = self._keys
        fit = [(failure, failure.job) for failure in failures if failure.job and not failure.flaw]
        names = [keys.failed, keys.queues, keys.crashes, keys.counted]
        names += [keys.queue(failure.queue) for failure, _ in fit]
        arguments: list[bytes | str | int] = []
        for failure, job in fit:
            arguments += (failure.text, failure.queue, job.raw, int(failure.exception in DEATHS))
        outcomes = iter(await self._scripts("requeue", names, 1 if from_head else -1, *arguments) if fit else [])
        return [next(outcomes) if failure.job and not failure.flaw else -2 for failure in failures]


def _check(outcome: int, failure: Failure) -> None:
    if outcome == 0:
        raise NotThere(f"there is no failed job {failure.id}")
    if outcome == -1:
        raise CannotRequeue(f"the key of the queue {failure.queue} is not a list")
    if outcome == -2:
        raise CannotRequeue(failure.flaw)


def read_failure(item: Item) -> Failure:
    """Read a record that any program may have written. Never raises."""
    number, failure_id, members, flaw = item.place + 1, item.digest[:ID_LENGTH], None, ""
    if not item.whole:
        flaw = f"larger than {MOST_BYTES >> 10} kB, so it has not been read"
    else:
        try:
            members = orjson.loads(item.text)
            flaw = "" if isinstance(members, dict) else "the record is not a JSON object"
        except orjson.JSONDecodeError as error:
            flaw = f"the record is not JSON: {error}"
    if not isinstance(members, dict):
        return Failure(number, failure_id, item.size, item.text, None, "", "", (), "", "", None, flaw)
    job, flaw = _job(item.text.decode(), members)
    if retried := bool(members.get("retried_at")):
        flaw = f"already retried, at {_words(members['retried_at'])}"
    trace = members.get("backtrace")
    lines = trace if isinstance(trace, list) else [] if trace is None else [trace]
    return Failure(
        number,
        failure_id,
        item.size,
        item.text,
        moment_of(members.get("failed_at")),
        _words(members.get("exception")),
        _words(members.get("error")),
        tuple(line for part in lines for line in _words(part).split("\n")),
        _words(members.get("worker")),
        _words(members.get("queue")),
        job,
        flaw,
        retried,
    )


def _job(text: str, members: dict[str, Any]) -> tuple[Job | None, str]:
    """The job in a record, and why it cannot be retried or ""."""
    queue, payload = members.get("queue"), members.get("payload")
    if payload is None or (isinstance(payload, dict) and payload.get("class") == UNREADABLE):
        return None, "there is no job in the record"
    try:
        raw = exact_member(text, "payload")
        job = job_of(payload, queue if isinstance(queue, str) else "", raw)
    except BadJob as error:
        return None, f"the record does not hold a valid job: {error}"
    except (RecursionError, ValueError) as error:
        return None, f"the job in the record cannot be read: {error}"
    if not isinstance(queue, str) or not queue:
        return job, "the record names no queue"
    return job, ""


def _words(value: object) -> str:
    """Any JSON value as a string."""
    if value is None or isinstance(value, str):
        return value or ""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # orjson reads deeper nesting than it writes
        return "nested too deeply to show"
