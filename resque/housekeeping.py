"""What every worker does beside its work, all the time: bring back what the dead left, promote what is due, set aside.

There is no leader to lose: each of these is one script, and whoever comes first has done it.
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
from redis.exceptions import RedisError

from asynckit.heartbeat import RETRY_SECONDS
from asynckit.log_limit import REDIS, OncePerSecond
from asynckit.redis_client import describe

from . import show
from .events import CleanedWorker, Erred, Failed, Hook, Promoted
from .keys import Keys
from .observe import OVERDUE_SECONDS, moment_of
from .registration import BEATS
from .scripts import Scripts
from .wire import MAX_JOB, BadJob, encode, failed_at, failure, job_of, readable

EVERY_SECONDS = 0.5
FOREIGN_EVERY_SECONDS = 5.0  # between two looks at the workers of other programs
AT_ONCE = 100  # workers or jobs in one call: a script keeps everybody else waiting
ROUNDS = 50  # calls in a row
UNSEEN_SECONDS = 3 * EVERY_SECONDS  # less is no outage, however short the lease: somebody had much to do
LEADER = "six-ways"  # all our processes lead under one name (promote.lua)
LEADER_SECONDS = 10.0

log = logging.getLogger(__name__)


class Housekeeping:
    """`crash_limit`: so often the worker of a job may die; `stuck_seconds`: so long a foreign worker may be silent;
    `lease_seconds`: as the workers have it.
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
    ) -> None:
        self.leader: str | None = None
        """Who promotes delayed jobs; LEADER if it is us."""
        self._redis: Any = redis  # its types do not know that answers are bytes here
        self._scripts = scripts
        self._keys = keys
        self._hook = hook
        self._crash_limit = crash_limit
        self._stuck_seconds = stuck_seconds
        self._unseen = max(lease_seconds / 2, UNSEEN_SECONDS)  # a lease outlives two thirds of it without a beat
        self._grace = lease_seconds / BEATS + RETRY_SECONDS  # within it, whoever lives has beaten
        self._log = OncePerSecond(log, REDIS)
        self._silent_leader: str | None = None  # in the log already

    async def run(self) -> None:
        """Until cancelled."""
        foreign = time.monotonic()
        while True:
            for chore in (self.reap, self.promote, self.set_aside):
                await self._try(chore)
            if time.monotonic() >= foreign:
                foreign = time.monotonic() + FOREIGN_EVERY_SECONDS
                await self._try(self.clean_foreign)
            await asyncio.sleep(random.uniform(0.8, 1.2) * EVERY_SECONDS)

    async def _try(self, chore: Callable[[], Awaitable[object]]) -> None:
        try:
            await chore()
        except RedisError as error:
            self._log.warning("housekeeping: %s", describe(error))
            self._hook(Erred("housekeeping", error))
        except Exception as error:  # bad data must not end it
            log.exception("error in housekeeping")
            self._hook(Erred("housekeeping", error))

    async def reap(self) -> int:
        """Bring back the jobs of workers whose lease has ended; how many workers that were.

        None for a moment after an outage of Redis: those who live say so first.
        """
        keys = self._keys
        names = [
            *(keys.leases, keys.workers, keys.heartbeats, keys.failed, keys.crashes),
            *(keys.attempts, keys.totals, keys.processed(), keys.failures(), keys.unreadable, keys.reaping),
        ]
        limits = (int(self._unseen * 1000), int(self._grace * 1000))
        arguments = (keys.namespace, self._crash_limit, failed_at(time.time()), AT_ONCE, *limits)
        dead = await self._scripts("reap", names, *arguments)
        for worker, queue, what, _ in dead:
            outcome = {
                b"": "it had no job",
                b"back": f"its job is back in {readable(queue.decode(errors='replace'))}",
                b"failed": "its job has failed",
                b"filed": "its job had been put into the failed list by somebody else",
            }[what]
            self._hook(CleanedWorker(worker.decode(errors="replace"), outcome))
        return len(dead)

    async def promote(self) -> int:
        """Move what is due into its queue, unless a foreign scheduler leads; how many jobs."""
        keys, moved = self._keys, 0
        names = [keys.node_lock, keys.ruby_lock, keys.schedule, keys.queues, keys.unreadable]
        arguments = (keys.namespace, LEADER, int(LEADER_SECONDS * 1000), AT_ONCE)
        for _ in range(ROUNDS):  # then the other chores have their turn, however much is due
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
        """A foreign leader that was killed keeps its lock until that ends: name it, once."""
        if overdue < OVERDUE_SECONDS:
            self._silent_leader = None
        elif self._silent_leader != leader:
            self._silent_leader = leader
            until = f"its lock ends in {ends_in:.0f} s" if ends_in >= 0 else "its lock has no end"
            log.warning(
                "%s leads and has not moved jobs that have been due for %d s: is it dead? They wait; %s",
                *(show.one_line(leader), overdue, until),
            )

    async def resign(self) -> bool:
        """At our end: give the lock back, unless other workers of ours are there to lead. True: we gave it back."""
        keys = self._keys
        return bool(await self._scripts("resign", [keys.node_lock, keys.ruby_lock, keys.leases], LEADER))

    async def set_aside(self) -> int:
        """What was in a queue and is no job goes to the failed list, as a text; how many, a hundred at the most."""
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

    async def clean_foreign(self) -> int:
        """Take away workers of other programs that have been silent for too long; their jobs have failed. How many."""
        now = (await self._redis.time())[0]
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
            return f"what is under the key of the queue {queue} is no list"
    except orjson.JSONDecodeError as error:
        return f"not JSON: {error}"
    except BadJob as error:
        return str(error)
    return "no queue to put it into"


def _last_sign(ping: bytes | None, beat: bytes | None) -> float:
    """When a worker of Node or Ruby gave its last sign of life (unix seconds); never too long ago without any."""
    signs = [moment for moment in (_seen_at(ping), moment_of(beat)) if moment is not None and moment != float("inf")]
    return max(signs, default=float("inf"))


def _seen_at(sign: bytes | None) -> float:
    """When a Node worker gave its last sign of life (unix seconds). Without a sign nobody knows: never too long ago."""
    try:
        members: Any = orjson.loads(sign or b"")
        return float(members["time"])
    except (ValueError, TypeError, KeyError):
        return float("inf")


def _stuck_record(working: bytes, worker_id: str, silent: float) -> str:
    """As Node's forceClean files it: the second line of the backtrace is what its retryStuckJobs looks for."""
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
        error=f"Worker Timeout: no sign of life for {silent:.0f} s",
        backtrace=["killed by a worker of six ways", "queue#forceCleanWorker", "six-ways"],
        now=time.time(),
        raw=raw,
    )
