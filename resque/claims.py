"""Reserve, work, acknowledge: a claim moves a job from its queue into a worker's record, and only settling it removes
it.

Delivery is at least once. reap.lua recovers a job whose worker died before it acknowledged; a job that was done but not
acknowledged within the lease runs a second time. Settling a job needs the token of its claim, so no worker can settle
the claim of another.
"""

import math
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from itertools import count

import orjson
from redis.exceptions import RedisError

from asynckit.batcher import Batcher
from asynckit.ids import made_at

from .keys import CHART_KEPT_SECONDS, CHART_SECONDS, Keys
from .scripts import Scripts, is_lost
from .wire import MAX_JOB, BadJob, Job, failure, read_job, with_queue, working_since

LINGER_SECONDS = 0.003  # how long a call waits for more slots to be free, or for more jobs to be done


class LeaseLost(Exception):
    """This worker's lease has ended, and other workers have taken over its jobs."""


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """Runs one job at a time. In Redis it is a worker: `name` and `id` are NAME and ID in keys.py."""

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
    """None if it is not a valid job; `bad` then says why."""
    bad: str
    key: str
    """The field under which its attempts and crashes are counted; "" if no job has any."""
    failed: int
    """Failed attempts so far."""
    crashes: int
    waited: float | None
    """Seconds since its id was made, by Redis's clock; None if the id holds no time."""
    lock: str | None = None
    """The name of its lock, if its class is unique."""
    asked: str = ""
    """The script that was called to settle the job. If the same script is called again, its first answer was lost."""
    vacated: bool = False
    """The job has ended here: its slot is free, or has the next job."""

    def repeats(self, script: str) -> int:
        repeated = script == self.asked
        self.asked = script
        return int(repeated)


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one claim call."""

    claims: list[Claim]
    paused: str
    """Why one of the queues is paused; "" if none is."""
    waits: dict[str, float]
    """For each queue, in how many seconds to claim again. 0.0: as soon as it has a job. Below 0: as soon as all slots
    are free."""


class Acknowledged:
    """What happens to the slots whose jobs are done. The class Slots overrides these methods."""

    def are_enough_done(self, number: int) -> bool:
        """Whether to acknowledge this number of jobs now, or to wait LINGER_SECONDS for more."""
        return True

    def begin_acknowledge(self, slots: Sequence[Slot]) -> None:
        """Called before the jobs of these slots are acknowledged, in the same tick of the event loop."""

    def vacate(self, claim: Claim) -> None:
        """The job is acknowledged."""


class Claims:
    """The scripts that claim and settle jobs. All methods raise RedisError when Redis does not answer."""

    def __init__(
        self,
        scripts: Scripts,
        keys: Keys,
        queues: Sequence[str],
        per_second: float | None = None,
        slots: Acknowledged | None = None,
    ) -> None:
        """All workers with the same `per_second` together take at most that many jobs per second from each queue."""
        self._scripts = scripts
        self._keys = keys
        self._queues = list(queues)
        self._options = (str(1000 / per_second if per_second else 0), keys.queue(""), keys.worker(""))
        self._queue_keys = [
            key for queue in queues for key in (keys.queue(queue), keys.paused(queue), keys.throttle(queue))
        ]
        self._tokens = count()
        self._random = secrets.token_hex(4)
        self._slots = slots or Acknowledged()
        enough = self._slots.are_enough_done
        self._acknowledge = Batcher(self._acknowledge_many, is_enough=enough, gather_seconds=LINGER_SECONDS)

    async def take(self, slots: Sequence[Slot], *, busy: bool) -> Answer:
        """Claim a job for each of these free slots. Raises LeaseLost.

        You may repeat it when its answer was lost: the slots then get the same jobs again.
        """
        keys = self._keys
        names = [keys.leases, keys.workers, keys.pause_all, keys.attempts, keys.crashes, keys.unreadable]
        names += (*self._queue_keys, *(keys.worker(slot.id) for slot in slots))
        run_at = working_since(time.time())
        heads = orjson.dumps([f'{run_at},"worker":"{slot.name}"' for slot in slots])
        token = f"{self._random}{next(self._tokens):x}"
        try:
            answer = await self._scripts("claim", names, heads, token, int(busy), MAX_JOB, *self._options)
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

    def acknowledge(self, claim: Claim) -> Awaitable[bool]:
        """The job is done. False: the lease had ended, and another worker runs it, or ran it, a second time."""
        return self._acknowledge(claim)

    async def _acknowledge_many(self, claims: Sequence[Claim]) -> Sequence[bool]:
        keys = self._keys
        self._slots.begin_acknowledge([claim.slot for claim in claims if not claim.asked])
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
        for claim in claims:
            self._slots.vacate(claim)
        return [result == 1 for result in results]

    async def give_up(self, claim: Claim, exception: str, error: str, backtrace: Sequence[str]) -> bool:
        """Move the job to the failed list."""
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
        """Delay the job by `seconds`, rounded up to a whole second of Redis's clock, and count an attempt."""
        assert claim.job is not None
        keys, slot, job = self._keys, claim.slot, with_queue(claim.job)
        names = [
            *(keys.worker(slot.id), keys.workers, keys.schedule, keys.timestamps(job.raw)),
            *(keys.attempts, keys.totals, self._chart(), keys.counted),
        ]
        pause, repeated = math.ceil(seconds * 1000), claim.repeats("retry")
        arguments = (slot.id, claim.token, job.raw, pause, job.queue, CHART_KEPT_SECONDS, repeated, keys.namespace)
        return bool(await self._scripts("retry", names, *arguments))

    async def release(self, claim: Claim) -> bool:
        """Put the job back at the head of its queue; no attempt is counted."""
        keys, slot = self._keys, claim.slot
        names = [keys.worker(slot.id), keys.workers, keys.queue(claim.queue)]
        return bool(await self._scripts("release", names, slot.id, claim.token, claim.raw))

    def _chart(self) -> str:
        return self._keys.chart(int(time.time()) // CHART_SECONDS)


def bucket(seconds: float) -> int:
    """The histogram bucket of a waiting time: bucket n is up to 2^n ms."""
    return (max(1, math.ceil(seconds * 1000)) - 1).bit_length()


def _claim(
    slot: Slot, token: bytes, queue: bytes, raw: bytes, key: bytes, failed: int, crashes: int, now: float
) -> Claim:
    name, job, bad = queue.decode(), None, ""
    try:
        job = read_job(raw, name)
    except BadJob as error:
        bad = str(error)
    job_id = job.id if job else None
    made = made_at(job_id) if job_id else None
    waited = None if made is None else max(0.0, now - made)
    text = job.raw if job else raw.decode(errors="replace")
    return Claim(slot, token.decode(), name, text, job, bad, key.decode(errors="replace"), failed, crashes, waited)
