"""Checks workers: the members of `workers`, their records and heartbeats, and keys of workers that no longer exist."""

import re
import time
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from typing import Any

import orjson

from ..dates import moment_of
from ..failed import FailedList
from ..show import bytes_as_text, duration
from ..wire import exact_member, failure, job_of
from .finding import Finding, Repair, done
from .scan import Examination

SILENT_SECONDS = 300.0  # as in Ruby: a worker whose heartbeat is older is dead
SILENT_NODE_SECONDS = 3600.0  # as in Node, for its pings
FILED_AMONG = 1000  # how many of the latest failures are searched for one that names the worker

_OURS = re.compile(rb"[^:]*\.[0-9a-f]{8}:\d+\+\d+:.")  # an ID as registration.py makes it


async def examine(examination: Examination) -> AsyncIterator[Finding]:
    keys, seen = examination.keys, examination.seen
    members = await examination.members(keys.workers)
    beats = {worker: moment_of(value) for worker, value in (await examination.fields(keys.heartbeats)).items()}
    pings = {name: await _ping(examination, name) for name in seen.pings}
    leases = await examination.scores(keys.leases)
    known = members | seen.workers | leases.keys()
    for worker in sorted(known):
        if leases.get(worker, 0.0) / 1000 > examination.now:
            continue  # it is ours and its lease is valid; when the lease ends, reap.lua cleans up
        sign = max(beats.get(worker) or 0.0, pings.get(_name_of(worker)) or 0.0)
        silent = examination.now - sign if sign else None
        limit = SILENT_NODE_SECONDS if _name_of(worker) in pings else SILENT_SECONDS
        if worker in members:
            what, is_dead = _of_member(worker, silent, limit, has_lease=worker in leases)
        else:
            what, is_dead = _of_nonmember(silent)
        if what:
            key = (
                f"{keys.workers} {bytes_as_text(worker)!r}"
                if worker in members
                else examination.name(b"worker", worker)
            )
            remedy = "remove it; a job that it held goes to the failed list"
            yield Finding(
                what, key, *((remedy, _worker_removal(examination, worker, worker in members)) if is_dead else ())
            )
    for finding in [*_of_beats(examination, beats, known), *_of_pings(examination, pings, known)]:
        yield finding


def _of_beats(
    examination: Examination, beats: Mapping[bytes, float | None], known: Collection[bytes]
) -> Iterator[Finding]:
    for worker, moment in sorted(beats.items()):
        if moment is None or (worker not in known and examination.now - moment > SILENT_SECONDS):
            what = "a heartbeat of a worker that does not exist"
            yield Finding(
                what if moment else "a heartbeat that is not a date: it prevents every Ruby worker from starting",
                f"{examination.keys.heartbeats} {bytes_as_text(worker)!r}",
                "remove it",
                _beat_removal(examination, worker, moment),
            )


def _of_pings(
    examination: Examination, pings: Mapping[bytes, float | None], known: Collection[bytes]
) -> Iterator[Finding]:
    names = {_name_of(worker) for worker in known}
    for name, moment in sorted(pings.items()):
        if name not in names and examination.now - (moment or 0.0) > SILENT_SECONDS:
            yield Finding(
                "the ping of a worker that does not exist: Node's scheduler reports it as an error",
                examination.name(b"worker:ping", name),
                "remove it",
                _ping_removal(examination, name, moment),
            )


def _of_member(worker: bytes, silent: float | None, limit: float, *, has_lease: bool) -> tuple[str, bool]:
    """What is wrong with a member of `workers`, or "", and whether it is certainly dead."""
    if not _parses(worker):
        return "is not HOST:PID:QUEUES: it prevents every Ruby worker from starting", True
    if has_lease:
        return "", False  # the lease has ended, and the next worker of ours recovers its job
    if _OURS.match(worker):
        return "a worker of ours without a lease: no worker would ever recover its job", True
    if silent is None:
        return "a worker without a heartbeat: it is dead, or an idle worker of Node that serves all queues", False
    if silent > limit:
        return f"a worker that has been silent for {duration(silent)}", True
    return "", False


def _of_nonmember(silent: float | None) -> tuple[str, bool]:
    """The same for a worker that is not a member of `workers` but has other keys."""
    if silent is not None and silent <= SILENT_SECONDS:
        return f"a program removed this worker from workers, but it was alive {duration(silent)} ago", False
    return "a key of a worker that no longer exists", True


async def served_queues(examination: Examination) -> set[str]:
    """The names of the queues that live workers serve; those of Ruby and Node may be patterns such as `*`."""
    keys, found = examination.keys, set[str]()
    beats, leases = await examination.fields(keys.heartbeats), await examination.scores(keys.leases)
    for worker in await examination.members(keys.workers):
        if worker in leases or _OURS.match(worker):
            until = leases.get(worker, 0.0) / 1000
        else:
            sign, ping = moment_of(beats.get(worker)) or 0.0, await _ping(examination, _name_of(worker)) or 0.0
            until = max(sign + SILENT_SECONDS, ping + SILENT_NODE_SECONDS)
        if until > examination.now:
            found.update(bytes_as_text(worker.split(b":", 2)[-1]).split(","))
    return found


async def _ping(examination: Examination, name: bytes) -> float | None:
    try:
        members: Any = orjson.loads(await examination.redis.get(examination.key(b"worker:ping", name)) or b"")
        return moment_of(members["time"])
    except (ValueError, TypeError, KeyError):
        return None


def _worker_removal(examination: Examination, worker: bytes, is_member: bool) -> Repair:
    """Remove all keys of a worker. If it held a job, the job goes to the failed list, unless the list already has a
    record of this worker: Node's forceClean adds that record but does not delete the worker's own record.
    """
    keys, record = examination.keys, examination.key(b"worker", worker)

    async def repair() -> bool:
        async with examination.redis.pipeline(transaction=True) as pipeline:
            await pipeline.watch(record, keys.workers, keys.leases)
            lease = await pipeline.zscore(keys.leases, worker) if examination.is_sound(keys.leases) else None
            if lease is not None and lease / 1000 > examination.now:
                return False
            if examination.is_sound(keys.workers) and await pipeline.sismember(keys.workers, worker) != is_member:
                return False
            working = await pipeline.get(record) if examination.is_sound(keys.worker(bytes_as_text(worker))) else None
            is_filed = working is not None and await _is_filed(examination, worker)
            pipeline.multi()
            if working is not None and not is_filed:
                pipeline.rpush(keys.failed, _lost_record(working, worker))
            pipeline.delete(record, record + b":started", examination.key(b"worker:ping", _name_of(worker)))
            pipeline.delete(examination.key(b"stat:processed", worker), examination.key(b"stat:failed", worker))
            pipeline.srem(keys.workers, worker).hdel(keys.heartbeats, worker).zrem(keys.leases, worker)
            return await done(pipeline)

    return repair


async def _is_filed(examination: Examination, worker: bytes) -> bool:
    names = (bytes_as_text(worker), bytes_as_text(_name_of(worker)))
    failures = await FailedList(examination.client, examination.keys).list(count=FILED_AMONG)
    return any(failure.worker in names for failure in failures)


def _lost_record(working: bytes, worker: bytes) -> str:
    """The failure record for the job of a worker that no longer exists."""
    queue, job, raw = "", None, bytes_as_text(working)
    try:
        members: Any = orjson.loads(working)
        queue = members["queue"] if isinstance(members["queue"], str) else ""
        payload = exact_member(working.decode(), "payload")
        job = job_of(members["payload"], queue, payload)
        raw = payload
    except (ValueError, TypeError, KeyError, RecursionError):
        pass  # the record is kept unchanged
    return failure(
        job,
        queue=queue,
        worker=bytes_as_text(worker),
        exception="WorkerLost",
        error="its worker no longer exists, and no program settled the job",
        backtrace=[],
        now=time.time(),
        raw=raw,
    )


def _beat_removal(examination: Examination, worker: bytes, moment: float | None) -> Repair:
    async def repair() -> bool:
        async with examination.redis.pipeline(transaction=True) as pipeline:
            await pipeline.watch(examination.keys.heartbeats)
            if moment_of(await pipeline.hget(examination.keys.heartbeats, worker)) != moment:
                return False
            pipeline.multi()
            pipeline.hdel(examination.keys.heartbeats, worker)
            return await done(pipeline)

    return repair


def _ping_removal(examination: Examination, name: bytes, moment: float | None) -> Repair:
    key = examination.key(b"worker:ping", name)

    async def repair() -> bool:
        async with examination.redis.pipeline(transaction=True) as pipeline:
            await pipeline.watch(key)
            if await _ping(examination, name) != moment:
                return False
            pipeline.multi()
            pipeline.delete(key)
            return await done(pipeline)

    return repair


def _name_of(worker: bytes) -> bytes:
    return b":".join(worker.split(b":", 2)[:2])


def _parses(worker: bytes) -> bool:
    """Whether it is HOST:PID:QUEUES as Ruby parses it."""
    parts = worker.split(b":", 2)
    try:
        worker.decode()
    except UnicodeDecodeError:
        return False
    return len(parts) == 3 and all(parts)
