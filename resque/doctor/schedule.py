"""Checks delayed jobs: the schedule, the lists of its seconds, the `timestamps:` sets, the leaders' locks, and cron."""

from collections.abc import AsyncIterator

from ..cron import BadSchedule, NeverDue, read_schedule
from ..delayed import DelayedJobs
from ..housekeeping import LEADER
from ..observe import Observer
from ..queue import Queue
from ..show import bytes_as_text
from .finding import Finding, Repair, done
from .scan import Examination, is_second


async def examine(examination: Examination) -> AsyncIterator[Finding]:
    for check in (_schedule, _timestamps, _leader, _locks, _cron):
        async for finding in check(examination):
            yield finding


async def _schedule(examination: Examination) -> AsyncIterator[Finding]:
    keys, planned = examination.keys, examination.seen.delayed
    if not examination.is_sound(keys.schedule):
        return
    scores = await examination.scores(keys.schedule)
    for second in sorted(planned):
        if (score := scores.get(str(second).encode())) != second:
            what = "these jobs are missing in the schedule: they would wait forever"
            yield Finding(
                what if score is None else f"these jobs are scheduled for {score:.15g}, which is not their second",
                keys.delayed(second),
                "schedule them for their second",
                _schedule_addition(examination, second),
            )
    for member in sorted(scores):
        if not (is_second(member) and int(member) in planned):
            yield Finding(
                "scheduled, but there are no jobs at this second",
                f"{keys.schedule} {bytes_as_text(member)!r}",
                "remove it from the schedule",
                _schedule_removal(examination, member),
            )


def _schedule_addition(examination: Examination, second: int) -> Repair:
    """Add the second to the schedule. If its list is gone by then, the next promotion removes the second again."""

    async def repair() -> bool:
        return bool(await examination.redis.zadd(examination.keys.schedule, {str(second): second}, ch=True))

    return repair


def _schedule_removal(examination: Examination, member: bytes) -> Repair:
    key = examination.key(b"delayed", member)

    async def repair() -> bool:
        async with examination.redis.pipeline(transaction=True) as pipeline:
            await pipeline.watch(key, examination.keys.schedule)
            if await pipeline.type(key) == b"list":
                return False
            pipeline.multi()
            pipeline.zrem(examination.keys.schedule, member)
            return await done(pipeline)

    return repair


async def _timestamps(examination: Examination) -> AsyncIterator[Finding]:
    for raw in examination.seen.timestamps:
        for member in sorted(await examination.redis.smembers(examination.key(b"timestamps", raw))):
            if not await _waits(examination, member, raw):
                yield Finding(
                    "says that a job waits at a second where it does not: Node would refuse to enqueue it for then",
                    f"{examination.name(b'timestamps', raw)} {bytes_as_text(member)!r}",
                    "remove this member",
                    _timestamp_removal(examination, raw, member),
                )


async def _waits(examination: Examination, member: bytes, raw: bytes) -> bool:
    if not member.startswith(b"delayed:") or not is_second(member[8:]):
        return False
    key = examination.key(member)
    return await examination.redis.type(key) == b"list" and await examination.redis.lpos(key, raw) is not None


def _timestamp_removal(examination: Examination, raw: bytes, member: bytes) -> Repair:
    key = examination.key(b"timestamps", raw)

    async def repair() -> bool:
        async with examination.redis.pipeline(transaction=True) as pipeline:
            await pipeline.watch(key, examination.key(member))
            if await _waits(examination, member, raw):
                return False
            pipeline.multi()
            pipeline.srem(key, member)
            return await done(pipeline)

    return repair


async def _leader(examination: Examination) -> AsyncIterator[Finding]:
    """A killed leader holds its lock until the lock expires. Until then no scheduler promotes due jobs."""
    if not examination.is_sound(examination.keys.schedule):
        return
    jobs, seconds = await DelayedJobs(Queue(examination.client, examination.keys.namespace)).overdue()
    leader = await Observer(examination.client, examination.keys).leader()
    if jobs and leader not in (None, LEADER):
        what = f"{jobs:,} delayed jobs are overdue, the oldest for {seconds:.0f} s; the leader {leader} may be dead"
        yield Finding(what, examination.keys.schedule)


async def _locks(examination: Examination) -> AsyncIterator[Finding]:
    for lock in (examination.keys.node_lock, examination.keys.ruby_lock):
        if await examination.redis.pttl(lock) == -1:
            yield Finding(
                "a leader's lock that never expires: if its owner is dead, no program promotes delayed jobs", lock
            )


async def _cron(examination: Examination) -> AsyncIterator[Finding]:
    """Schedules that only resque-scheduler can fire, if no resque-scheduler is the leader."""
    keys = examination.keys
    if not examination.is_sound(keys.cron_schedules):
        return
    if await examination.redis.get(keys.ruby_lock) not in (None, LEADER.encode()):  # ours holds it for a second only
        return
    for name, text in sorted((await examination.redis.hgetall(keys.cron_schedules)).items()):
        try:
            read_schedule(bytes_as_text(name), text)
        except NeverDue:
            continue
        except BadSchedule as error:
            what = f"only resque-scheduler can fire this schedule, and none is the leader: {error}"
            yield Finding(what, f"{keys.cron_schedules} {bytes_as_text(name)!r}")
