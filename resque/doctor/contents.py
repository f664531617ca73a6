"""Checks the content of lists: queues without a worker, invalid jobs, records that break a dashboard, counters."""

import re
from collections import Counter
from collections.abc import AsyncIterator, Collection
from fnmatch import fnmatchcase
from typing import Any

import orjson

from ..dates import moment_of
from ..failed import read_failure
from ..items import Item, Items
from ..scripts import Scripts
from ..show import bytes_as_text
from ..wire import BadJob, Job, exact_member, job_of, read_job
from .finding import Finding, Repair, things
from .scan import Examination
from .workers import served_queues

Counted = dict[str, set[bytes]]
"""Key -> the jobs that it counts and that were not found so far."""


async def examine(examination: Examination) -> AsyncIterator[Finding]:
    keys = examination.keys
    items = Items(examination.client, Scripts(examination.client))
    counted: Counted = {key: set(await examination.fields(key)) for key in (keys.attempts, keys.crashes)}
    checks = (
        _queues(examination, items, counted),
        _delayed(examination, items, counted),
        _failures(examination, items),
    )
    for check in checks:
        async for finding in check:
            yield finding
    for worker in examination.seen.workers:
        _count_off(counted, await _held_by(examination, worker))
    for key, left in counted.items():
        if left:
            jobs = things(len(left), "job", "jobs")
            yield Finding(f"counts {jobs} that no longer exist: finished or removed elsewhere", key)
    for counter in (keys.processed(), keys.failures()):
        value = await examination.redis.get(counter) if examination.is_sound(counter) else None
        if value is not None and not re.fullmatch(rb"-?\d{1,18}", value):
            yield Finding("is not a number: Ruby's workers could not settle a job", counter)


async def _queues(examination: Examination, items: Items, counted: Counted) -> AsyncIterator[Finding]:
    keys = examination.keys
    names, patterns = await examination.members(keys.queues), await served_queues(examination)
    for name in sorted(examination.seen.queues):
        key = examination.name(b"queue", name)
        if name not in names and examination.is_sound(keys.queues):
            yield Finding(
                "jobs wait in a queue that is missing in queues: workers that read that list do not find it",
                key,
                "add its name to queues",
                _naming(examination, name),
            )
        if not _is_served(name, patterns):
            yield Finding("jobs wait here, and no live worker serves this queue", key)
        flaws = await _read_through(items, examination.key(b"queue", name), counted, bytes_as_text(name))
        for flaw, number in flaws.items():
            jobs = things(number, "invalid job", "invalid jobs")
            yield Finding(f"{jobs} ({flaw}), which our workers set aside and Node loses", key)


async def _delayed(examination: Examination, items: Items, counted: Counted) -> AsyncIterator[Finding]:
    keys, flaws = examination.keys, Counter[str]()
    for second in sorted(examination.seen.delayed):
        flaws += await _read_through(items, keys.delayed(second).encode(), counted, needs_queue=True)
    for flaw, number in flaws.items():
        jobs = things(number, "invalid job", "invalid jobs")
        yield Finding(f"{jobs} ({flaw}), which our workers set aside and Ruby loses", keys.key("delayed:…"))


def _is_served(name: bytes, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(bytes_as_text(name), pattern) for pattern in patterns)


def _naming(examination: Examination, name: bytes) -> Repair:
    async def repair() -> bool:
        return bool(await examination.redis.sadd(examination.keys.queues, name))

    return repair


async def _read_through(
    items: Items, key: bytes, counted: Counted, queue: str = "", *, needs_queue: bool = False
) -> Counter[str]:
    """How many invalid jobs are in a list, by their flaw."""
    flaws: Counter[str] = Counter()
    async for item in items.all(key):
        if not item.whole:
            continue
        try:
            job = read_job(item.text, queue)
        except BadJob as error:
            flaws[str(error).partition(":")[0]] += 1
            continue
        if needs_queue and not job.queue:
            flaws["it names no queue"] += 1
        _count_off(counted, job)
    return flaws


def _count_off(counted: Counted, job: Job | None) -> None:
    if job is not None:
        for left in counted.values():
            left.discard(job.key.encode())


async def _held_by(examination: Examination, worker: bytes) -> Job | None:
    try:
        record = (await examination.redis.get(examination.key(b"worker", worker)) or b"").decode()
        members: Any = orjson.loads(record)
        return job_of(members["payload"], str(members.get("queue", "")), exact_member(record, "payload"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


async def _failures(examination: Examination, items: Items) -> AsyncIterator[Finding]:
    flaws: Counter[str] = Counter()
    async for item in items.all(examination.keys.failed.encode()):
        if flaw := _flaw(item):
            flaws[flaw] += 1
    for flaw, number in flaws.items():
        yield Finding(f"{things(number, 'record', 'records')}: {flaw}", examination.keys.failed)


def _flaw(item: Item) -> str:
    """Why a record breaks Ruby's dashboard or Node's scheduler, or why it cannot be retried; "" if it is fine."""
    if not item.whole:
        return ""
    try:
        members: Any = orjson.loads(item.text)
    except orjson.JSONDecodeError:
        return "not JSON; Ruby's page of failures shows an error until it is removed"
    if not isinstance(members, dict):
        return "not a JSON object; Ruby's page of failures shows an error until it is removed"
    if not isinstance(members.get("failed_at"), str) or moment_of(members["failed_at"]) is None:
        return "no date that Ruby can read; its page of failures shows an error until it is removed"
    if not isinstance(members.get("backtrace"), list) or not isinstance(members.get("worker"), str):
        return "the backtrace is not a list, or the worker is missing: Ruby's page or Node's scheduler fails on it"
    failure = read_failure(item)
    flaw = "" if failure.retried else failure.flaw.partition(":")[0]
    return f"cannot be retried, because {flaw}" if flaw else ""
