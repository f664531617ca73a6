"""Delayed jobs: the schedule, the lists of its seconds, what says where a job waits; the locks of those who promote."""

from collections.abc import AsyncIterator

from ..housekeeping import LEADER
from ..observe import Observer
from ..schedules import BadSchedule, read_schedule
from ..show import bytes_as_text
from .finding import Finding, Repair, done
from .walk import Patient, is_second


async def examine(patient: Patient) -> AsyncIterator[Finding]:
    for examination in (_schedule, _timestamps, _leader, _locks, _cron):
        async for finding in examination(patient):
            yield finding


async def _schedule(patient: Patient) -> AsyncIterator[Finding]:
    keys, planned = patient.keys, patient.seen.delayed
    if not patient.is_sound(keys.schedule):
        return
    scores = await patient.scores(keys.schedule)
    for second in sorted(planned):
        if (score := scores.get(str(second).encode())) != second:
            what = "these jobs are in no schedule: they would wait for ever"
            yield Finding(
                what if score is None else f"these jobs are planned for {score:.15g}, which is not their second",
                keys.delayed(second),
                "plan them for their second",
                _planning(patient, second),
            )
    for member in sorted(scores):
        if not (is_second(member) and int(member) in planned):
            yield Finding(
                "planned, but there is nothing to be done",
                f"{keys.schedule} {bytes_as_text(member)!r}",
                "take it out of the schedule",
                _unplanning(patient, member),
            )


def _planning(patient: Patient, second: int) -> Repair:
    """Should the list be gone by now, whoever promotes delayed jobs finds it empty and takes it out again."""

    async def repair() -> bool:
        return bool(await patient.redis.zadd(patient.keys.schedule, {str(second): second}, ch=True))

    return repair


def _unplanning(patient: Patient, member: bytes) -> Repair:
    key = patient.key(b"delayed", member)

    async def repair() -> bool:
        async with patient.redis.pipeline(transaction=True) as pipeline:
            await pipeline.watch(key, patient.keys.schedule)
            if await pipeline.type(key) == b"list":
                return False
            pipeline.multi()
            pipeline.zrem(patient.keys.schedule, member)
            return await done(pipeline)

    return repair


async def _timestamps(patient: Patient) -> AsyncIterator[Finding]:
    for raw in patient.seen.timestamps:
        for member in sorted(await patient.redis.smembers(patient.key(b"timestamps", raw))):
            if not await _waits(patient, member, raw):
                yield Finding(
                    "says that a job waits where it does not: Node would not plan it for then",
                    f"{patient.name(b'timestamps', raw)} {bytes_as_text(member)!r}",
                    "take that out",
                    _timestamp_removal(patient, raw, member),
                )


async def _waits(patient: Patient, member: bytes, raw: bytes) -> bool:
    if not member.startswith(b"delayed:") or not is_second(member[8:]):
        return False
    key = patient.key(member)
    return await patient.redis.type(key) == b"list" and await patient.redis.lpos(key, raw) is not None


def _timestamp_removal(patient: Patient, raw: bytes, member: bytes) -> Repair:
    key = patient.key(b"timestamps", raw)

    async def repair() -> bool:
        async with patient.redis.pipeline(transaction=True) as pipeline:
            await pipeline.watch(key, patient.key(member))
            if await _waits(patient, member, raw):
                return False
            pipeline.multi()
            pipeline.srem(key, member)
            return await done(pipeline)

    return repair


async def _leader(patient: Patient) -> AsyncIterator[Finding]:
    """A leader that was killed keeps its lock until the lock ends. Until then no scheduler moves due jobs."""
    if not patient.is_sound(patient.keys.schedule):
        return
    observer = Observer(patient.redis, patient.keys)
    (jobs, seconds), leader = await observer.overdue(), await observer.leader()
    if jobs and leader not in (None, LEADER):
        what = f"{jobs:,} delayed jobs are overdue, the oldest for {seconds:.0f} s; {leader} leads: is it dead?"
        yield Finding(what, patient.keys.schedule)


async def _locks(patient: Patient) -> AsyncIterator[Finding]:
    for lock in (patient.keys.node_lock, patient.keys.ruby_lock):
        if await patient.redis.pttl(lock) == -1:
            yield Finding("a leader's lock without an end: if its owner is dead, nothing is promoted again", lock)


async def _cron(patient: Patient) -> AsyncIterator[Finding]:
    """Schedules that only resque-scheduler can fire, while none leads."""
    keys = patient.keys
    if not patient.is_sound(keys.cron_schedules) or await patient.redis.exists(keys.ruby_lock):
        return
    for name, text in sorted((await patient.redis.hgetall(keys.cron_schedules)).items()):
        try:
            read_schedule(bytes_as_text(name), text)
        except BadSchedule as error:
            what = f"only resque-scheduler can fire this schedule, and none leads: {error}"
            yield Finding(what, f"{keys.cron_schedules} {bytes_as_text(name)!r}")
