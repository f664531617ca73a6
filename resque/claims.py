"""Reserve, work, acknowledge: jobs move from their queue into a worker's record and leave it only when they are
settled.

At least once: what is lost between a claim and its acknowledgement is brought back by reap.lua; what was done and could
not be acknowledged in time is done again. Only the token of the claim settles a job, so that nobody settles for
another.
"""

import math
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import orjson
from redis.exceptions import RedisError

from asynckit.batcher import Batcher
from asynckit.ids import made_at

from .keys import CHART_KEPT_SECONDS, CHART_SECONDS, Keys
from .scripts import Scripts, is_lost
from .wire import MAX_JOB, BadJob, Job, failure, read_job, with_queue, working_since


class LeaseLost(Exception):
    """This worker was silent for too long: what it held is somebody else's now."""


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """Room for one job at a time; to the world a worker of its own: `name` is NAME, `id` is ID in keys.py."""

    number: int
    name: str
    id: str


@dataclass(slots=True, eq=False)
class Claim:
    """A job in a slot."""

    slot: Slot
    token: str
    queue: str
    raw: str
    job: Job | None
    """None if it is none after all; `bad` then says why."""
    bad: str
    key: str
    """Under which its attempts and crashes are counted; empty if nothing is counted at all."""
    failed: int
    """Attempts so far."""
    crashes: int
    waited: float | None
    """Seconds since its id was made, by Redis's clock; None if its id does not tell."""
    lock: str | None = None
    """The name of its lock, if jobs of its kind are unique."""
    asked: set[str] = field(default_factory=set)
    """The scripts that were asked to settle it: if one is asked again, its answer got lost."""

    def repeats(self, script: str) -> int:
        repeated = script in self.asked
        self.asked.add(script)
        return int(repeated)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking the queues."""

    claims: list[Claim]
    paused: str
    """Why one of them is paused, or nothing."""
    waits: dict[str, float]
    """For each queue when to ask again: in so many seconds; 0.0 when something is in it; below 0 when all slots are
    free.
    """


class Claims:
    """The scripts around one job, as the worker calls them. All raise RedisError when Redis does not answer."""

    def __init__(self, scripts: Scripts, keys: Keys, queues: Sequence[str], per_second: float | None = None) -> None:
        """`per_second` jobs are taken from each queue, by all workers together that say so."""
        self._scripts = scripts
        self._keys = keys
        self._queues = list(queues)
        interval = 1000 / per_second if per_second else 0
        self._asked = orjson.dumps([(queue, interval) for queue in queues])
        self._queue_keys = [
            key for queue in queues for key in (keys.queue(queue), keys.paused(queue), keys.throttle(queue))
        ]
        self._tokens = count()
        self._chance = secrets.token_hex(4)
        self._acknowledge = Batcher(self._acknowledge_many)

    async def take(self, slots: Sequence[Slot], *, busy: bool) -> Answer:
        """Ask for a job for each of these free slots. Raises LeaseLost.

        May be repeated when its answer got lost: the slots then get what they had got.
        """
        keys = self._keys
        names = [keys.leases, keys.workers, keys.pause_all, keys.attempts, keys.crashes, keys.unreadable]
        names += (*self._queue_keys, *(keys.worker(slot.id) for slot in slots))
        run_at = working_since(time.time())
        heads = orjson.dumps([(slot.id, f'{run_at},"worker":"{slot.name}"') for slot in slots])
        token = f"{self._chance}{next(self._tokens):x}"
        try:
            answer = await self._scripts("claim", names, self._asked, heads, token, int(busy), MAX_JOB)
        except RedisError as error:
            if is_lost(error):
                raise LeaseLost from None
            raise
        redis_now, paused, *rest = answer
        waits, rest = rest[: len(self._queues)], rest[len(self._queues) :]
        claims = [
            _claim(slots[rest[i]], *rest[i + 1 : i + 7], redis_now / 1000)  # type: ignore[call-arg]
            for i in range(0, len(rest), 7)
        ]
        return Answer(
            claims, paused.decode(errors="replace"), dict(zip(self._queues, (w / 1000 for w in waits), strict=True))
        )

    async def acknowledge(self, claim: Claim) -> bool:
        """It is done. False: its lease had ended, and another worker runs it, or ran it, a second time."""
        return await self._acknowledge(claim)

    async def _acknowledge_many(self, claims: Sequence[Claim]) -> Sequence[bool]:
        keys = self._keys
        chart: Counter[str] = Counter(succeeded=len(claims))
        names = [keys.workers, keys.processed(), keys.attempts, keys.crashes, keys.totals, self._chart()]
        jobs = []
        for claim in claims:
            names += (keys.worker(claim.slot.id), keys.processed(claim.slot.id))
            record = len(names) - 1
            if claim.lock:
                names.append(keys.unique(claim.lock))
            counted = claim.key if claim.failed or claim.crashes else ""
            job_id = claim.job.key if claim.job and claim.lock else ""
            again = claim.repeats("acknowledge")
            jobs.append((claim.slot.id, claim.token, record, len(names) if claim.lock else 0, job_id, counted, again))
            if claim.waited is not None:
                chart[f"waited:{bucket(claim.waited)}"] += 1
        results = await self._scripts(
            "acknowledge", names, orjson.dumps(jobs), orjson.dumps(list(chart.items())), CHART_KEPT_SECONDS
        )
        return [result == 1 for result in results]

    async def give_up(self, claim: Claim, exception: str, error: str, backtrace: Sequence[str]) -> bool:
        """Into the failed list, for good."""
        keys, slot = self._keys, claim.slot
        record = failure(
            claim.job,
            queue=claim.queue,
            worker=slot.id,
            exception=exception,
            error=error,
            backtrace=backtrace,
            now=time.time(),
            raw=claim.raw,
        )
        job_id = claim.job.key if claim.job else ""
        names = [
            *(keys.worker(slot.id), keys.workers, keys.failed, keys.processed(), keys.processed(slot.id)),
            *(keys.failures(), keys.failures(slot.id), keys.attempts, keys.crashes, keys.totals, self._chart()),
            keys.unique(claim.lock) if claim.lock else keys.unique("none"),
        ]
        arguments = (slot.id, claim.token, record, claim.key, job_id, CHART_KEPT_SECONDS, claim.repeats("give_up"))
        return bool(await self._scripts("give_up", names, *arguments))

    async def retry(self, claim: Claim, seconds: float) -> bool:
        """Again in so many seconds, rounded up to a whole second of the clock; counts an attempt."""
        assert claim.job is not None
        keys, slot, job = self._keys, claim.slot, with_queue(claim.job)
        second = math.ceil(time.time() + seconds)
        names = [
            *(keys.worker(slot.id), keys.workers, keys.schedule, keys.delayed(second), keys.timestamps(job.raw)),
            *(keys.attempts, keys.totals, self._chart()),
        ]
        arguments = (slot.id, claim.token, job.raw, second, job.queue, CHART_KEPT_SECONDS, claim.repeats("retry"))
        return bool(await self._scripts("retry", names, *arguments))

    async def give_back(self, claim: Claim) -> bool:
        """To the head of its queue, as if nothing had been."""
        keys, slot = self._keys, claim.slot
        names = [keys.worker(slot.id), keys.workers, keys.queue(claim.queue)]
        return bool(await self._scripts("give_back", names, slot.id, claim.token, claim.raw))

    def _chart(self) -> str:
        return self._keys.chart(int(time.time()) // CHART_SECONDS)


def bucket(seconds: float) -> int:
    """The class of a waiting time: number n is up to 2^n ms."""
    return max(0, math.ceil(math.log2(max(seconds, 0.001) * 1000)))


def _claim(
    slot: Slot, token: bytes, queue: bytes, raw: bytes, key: bytes, failed: int, crashes: int, now: float
) -> Claim:
    name, job, bad = queue.decode(), None, ""
    try:
        job = read_job(raw, name)
    except BadJob as error:
        bad = str(error)
    made = made_at(job.id) if job and job.id else None
    waited = None if made is None else max(0.0, now - made)
    text = raw.decode(errors="replace")
    return Claim(slot, token.decode(), name, text, job, bad, key.decode(errors="replace"), failed, crashes, waited)
