"""What every worker does while it runs jobs: recover the jobs of dead workers, promote delayed jobs, set invalid ones
aside, and forget the counts of jobs that other programs have finished.

No leader is needed: each of these is one script, and the first worker that calls it has done it.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import orjson
from redis.asyncio import Redis

from asynckit.bytes_redis import bytes_redis, redis_time
from asynckit.heartbeat import RETRY_SECONDS
from asynckit.log_limit import REDIS, OncePerSecond
from asynckit.redis_client import CALL_ERRORS, describe

from . import show
from .dates import moment_of
from .definition import Definitions
from .delayed import OVERDUE_SECONDS
from .events import CleanedWorker, Erred, Failed, Hook, Promoted
from .keys import Keys
from .registration import BEATS
from .scripts import Scripts
from .wire import MAX_JOB, BadJob, encode, failed_at, failure, job_of, read_job, readable

EVERY_SECONDS = 0.5
OTHERS_EVERY_SECONDS = 5.0  # between two checks of the workers of other programs
AT_ONCE = 100  # workers or jobs in one call: a script blocks all other clients of Redis
ROUNDS = 50  # calls in a row
UNSEEN_SECONDS = 3 * EVERY_SECONDS  # a shorter gap is not an outage, however short the lease: a worker was busy
GONE_SECONDS = 10.0  # a job that was due for this long and is nowhere is gone; it may be on its way in another program
COUNTED_SECONDS = 7 * 86_400.0  # the counts of a job are forgotten after this time in any case
LEADER = "six-ways"  # all our processes hold the lock under one name (promote.lua)
LEADER_SECONDS = 10.0

log = logging.getLogger(__name__)


class Housekeeping:
    """`crash_limit`: how often the worker of a job may die. `stuck_seconds`: how long the worker of another program may
    send no heartbeat. `lease_seconds`: the same value as in the workers. `definitions`: needed to free the locks of
    unique jobs.
    """

    def __init__(
        self,
        redis: Redis,
        scripts: Scripts,
        keys: Keys,
        hook: Hook,
        crash_limit: int = 5,
        stuck_seconds: float = 3600.0,
        lease_seconds: float = 10.0,
        definitions: Definitions | None = None,
    ) -> None:
        self.leader: str | None = None
        """The program that promotes delayed jobs; LEADER if it is ours."""
        self._redis = bytes_redis(redis)
        self._scripts = scripts
        self._keys = keys
        self._hook = hook
        self._definitions = definitions or {}
        self._crash_limit = crash_limit
        self._stuck_seconds = stuck_seconds
        # A lease survives two thirds of its time without a heartbeat.
        self._unseen = max(lease_seconds / 2, UNSEEN_SECONDS)
        self._grace = lease_seconds / BEATS + RETRY_SECONDS  # within this time every live worker has sent a heartbeat
        self._log = OncePerSecond(log, REDIS)
        self._silent_leader: str | None = None  # already logged
        self._counted_at: bytes | int = 0  # the cursor of forget_counts

    async def run(self) -> None:
        """Run until cancelled."""
        others_at = time.monotonic()
        while True:
            for task in (self.reap, self.promote, self.set_aside):
                await self._try(task)
            if time.monotonic() >= others_at:
                others_at = time.monotonic() + OTHERS_EVERY_SECONDS
                await self._try(self.clean_other_programs)
                await self._try(self.forget_counts)
            await asyncio.sleep(random.uniform(0.8, 1.2) * EVERY_SECONDS)

    async def _try(self, task: Callable[[], Awaitable[object]]) -> None:
        try:
            await task()
        except CALL_ERRORS as error:
            self._log.warning("housekeeping: %s", describe(error))
            self._hook(Erred("housekeeping", error))
        except Exception as error:  # invalid data must not stop the housekeeping
            log.exception("error in housekeeping")
            self._hook(Erred("housekeeping", error))

    async def reap(self) -> int:
        """Put the jobs of workers whose lease has ended back into their queues. Returns how many workers that were.

        After an outage of Redis it first waits for a third of a lease, so that live workers can renew theirs.
        """
        keys = self._keys
        names = [
            *(keys.leases, keys.workers, keys.heartbeats, keys.failed, keys.crashes),
            *(keys.attempts, keys.totals, keys.processed(), keys.failures(), keys.unreadable, keys.reaping),
            *(keys.counted, keys.queues),
        ]
        limits = (int(self._unseen * 1000), int(self._grace * 1000))
        arguments = (keys.namespace, self._crash_limit, failed_at(time.time()), AT_ONCE, *limits)
        dead = await self._scripts("reap", names, *arguments)
        for worker, queue, what, raw in dead:
            if what == b"failed":
                await self._unlock(raw, queue.decode(errors="replace"))
            outcome = {
                b"": "it had no job",
                b"back": f"its job is back in {readable(queue.decode(errors='replace'))}",
                b"failed": "its job has failed",
                b"filed": "another program had already put its job into the failed list",
            }[what]
            self._hook(CleanedWorker(worker.decode(errors="replace"), outcome))
        return len(dead)

    async def _unlock(self, raw: bytes, queue: str) -> None:
        """Free the lock of a unique job that failed with its worker. Only Python knows the name of the lock.

        If this process is killed before it does, the lock expires after `unique_seconds`.
        """
        with suppress(BadJob):
            job = read_job(raw, queue)
            definition = self._definitions.get(job.name)
            if definition and job.id and (lock := definition.lock_or_none(job)):
                await self._scripts("unlock", [self._keys.unique(lock)], job.id)

    async def promote(self) -> int:
        """Move due jobs into their queues, unless another scheduler is the leader. Returns how many jobs."""
        keys, moved = self._keys, 0
        names = [keys.node_lock, keys.ruby_lock, keys.schedule, keys.queues, keys.unreadable]
        arguments = (keys.namespace, LEADER, int(LEADER_SECONDS * 1000), AT_ONCE)
        for _ in range(ROUNDS):  # a limit, so that many due jobs do not delay the other tasks
            leader, count, more, ends_in, overdue = await self._scripts("promote", names, *arguments)
            self.leader = leader.decode(errors="replace")
            self._watch(self.leader, ends_in / 1000, overdue)
            moved += count
            if not more:
                break
        if moved:
            self._hook(Promoted(moved))
        return moved

    def _watch(self, leader: str, ends_in: float, overdue: float) -> None:
        """Log, once, a leader that moves no due jobs: if it was killed, it holds its lock until the lock expires."""
        if overdue < OVERDUE_SECONDS:
            self._silent_leader = None
        elif self._silent_leader != leader:
            self._silent_leader = leader
            until = f"its lock expires in {ends_in:.0f} s" if ends_in >= 0 else "its lock never expires"
            log.warning(
                "the leader %s has not moved jobs that have been due for %d s; it may be dead. They wait; %s",
                *(show.one_line(leader), overdue, until),
            )

    async def resign(self) -> bool:
        """On shutdown, release the lock unless other workers of ours are registered. True if it was released."""
        keys = self._keys
        return bool(await self._scripts("resign", [keys.node_lock, keys.ruby_lock, keys.leases], LEADER))

    async def set_aside(self) -> int:
        """Move invalid jobs from the queues to the failed list, as strings. Returns how many, at most 100."""
        keys, count = self._keys, 0
        while count < AT_ONCE and (oldest := await self._redis.lrange(keys.unreadable, 0, 1)):
            queue, raw = oldest
            error = BadJob(why_unreadable(raw, is_promoted=not queue))
            record = failure(
                None,
                queue=readable(queue.decode(errors="replace")),
                worker="nobody:0:none",
                exception="BadJob",
                error=str(error),
                backtrace=[],
                now=time.time(),
                raw=raw.decode(errors="backslashreplace"),
            )
            names = [keys.unreadable, keys.failed, keys.failures(), keys.totals]
            if await self._scripts("set_aside", names, queue, raw, record):
                count += 1
                self._hook(Failed("nobody", None, 0, error))
        return count

    async def forget_counts(self) -> int:
        """Forget the attempts and crashes of jobs that another program has finished or removed. Returns how many jobs.

        Each call reads on where the last one ended, at most 100 jobs.
        """
        keys = self._keys
        names = [keys.counted, keys.attempts, keys.crashes, keys.leases]
        limits = (int(GONE_SECONDS), int(COUNTED_SECONDS))
        self._counted_at, forgotten = await self._scripts(
            "forget", names, keys.namespace, self._counted_at, AT_ONCE, *limits
        )
        return int(forgotten)

    async def clean_other_programs(self) -> int:
        """Remove workers of other programs that have sent no heartbeat for too long, and move their jobs to the failed
        list. Returns how many workers.
        """
        now = int(await redis_time(self._redis))
        ours = {worker for worker, _ in await self._redis.zrange(self._keys.leases, 0, -1, withscores=True)}
        cleaned = 0
        for member in await self._redis.smembers(self._keys.workers) - ours:
            with suppress(UnicodeDecodeError):
                cleaned += await self._clean(member.decode(), now)
        return cleaned

    async def _clean(self, worker_id: str, now: int) -> bool:
        keys, parts = self._keys, worker_id.split(":", 2)
        if len(parts) < 3:
            return False
        name = ":".join(parts[:2])
        sign = await self._redis.get(keys.ping(name))
        beat = await self._redis.hget(keys.heartbeats, worker_id)
        silent = now - _last_sign(sign, beat)
        if silent <= self._stuck_seconds:
            return False
        working = await self._redis.get(keys.worker(worker_id)) or b""
        names = [
            *(keys.worker(worker_id), keys.ping(name), keys.workers, keys.failed, keys.failures(), keys.totals),
            *(keys.leases, keys.node_lock, keys.heartbeats, keys.started(worker_id)),
            *(keys.processed(worker_id), keys.failures(worker_id), keys.processed(name), keys.failures(name)),
        ]
        record = _stuck_record(working, worker_id, silent) if working else ""
        if not await self._scripts("clean", names, worker_id, sign or b"", working, record, LEADER, beat or b""):
            return False
        outcome = "its job is in the failed list" if record else "it had no job"
        self._hook(CleanedWorker(worker_id, f"silent for {silent:.0f} s; {outcome}"))
        return True


def why_unreadable(raw: bytes, *, is_promoted: bool = False) -> str:
    if len(raw) > MAX_JOB:
        return f"larger than {MAX_JOB} bytes: {len(raw)}"
    try:
        queue = job_of(orjson.loads(raw), "", "").queue
        if queue and is_promoted:
            return f"the key of the queue {queue} is not a list"
    except orjson.JSONDecodeError as error:
        return f"not JSON: {error}"
    except BadJob as error:
        return str(error)
    return "it names no queue"


def _last_sign(ping: bytes | None, beat: bytes | None) -> float:
    """When a worker of Node or Ruby sent its last heartbeat (unix seconds). Infinity if there is none: such a worker is
    not removed.
    """
    signs = [moment for moment in (_seen_at(ping), moment_of(beat)) if moment is not None and moment != float("inf")]
    return max(signs, default=float("inf"))


def _seen_at(sign: bytes | None) -> float:
    """When a worker of Node sent its last heartbeat (unix seconds); infinity if there is none."""
    try:
        members: Any = orjson.loads(sign or b"")
        return float(members["time"])
    except (ValueError, TypeError, KeyError):
        return float("inf")


def _stuck_record(working: bytes, worker_id: str, silent: float) -> str:
    """A failure record as Node's forceClean writes it; Node's retryStuckJobs looks for the second backtrace line."""
    try:
        members: Any = orjson.loads(working)
        payload, queue = members["payload"], str(members.get("queue", ""))
        args = job_of(payload, queue, "").args  # Node's script has made {} of an empty list
        raw = encode(payload | {"args": args})
        job = job_of(payload, queue, raw)
    except (ValueError, TypeError, KeyError, AttributeError):
        job, queue, raw = None, "", working.decode(errors="backslashreplace")
    return failure(
        job,
        queue=queue,
        worker=worker_id,
        exception="Worker Timeout (killed manually)",
        error=f"Worker Timeout: no heartbeat for {silent:.0f} s",
        backtrace=["killed by a worker of six ways", "queue#forceCleanWorker", "six-ways"],
        now=time.time(),
        raw=raw,
    )
