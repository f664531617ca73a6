"""The strategy's own counters: how many emails it holds, has finished, and has given up."""

import asyncio
import re
import time
from dataclasses import dataclass
from typing import Any

from eventlog.errors import LogError
from eventlog.jetstream import JetStreamLog
from lab.faults.running import Running
from lab.harness.processes import POLL_SECONDS
from resque import namespace_for

ELECTION_SECONDS = 20.0  # twice as long as nodes of NATS need to elect a leader
LEASE_SECONDS = 10.0  # a log needs one; nothing is claimed here
TAIL_BYTES = 1 << 20  # of a worker's log: more than it writes between two lines with its figures
PARKED = "eventlog:parked:{email}"  # hash of strategy 6: the parked events

_ID = re.compile(r"<[^<>\s\"]+@[^<>\s\"]+>")
_GAVE_UP = re.compile(r"gave up (<[^>]+>) after")
_FIGURES = re.compile(r"accepted \d+, .*, waiting (\d+), in flight (\d+),")
_ACTIVITY = re.compile(r"\] [\d:.]+ (sent <|<[^>]+> again in)")


@dataclass(frozen=True)
class Balance:
    """The counters for all emails that the strategy ever had."""

    queued: int
    accepted: int
    """Since its web server was started."""
    done: int | None
    """Sent or given up. None: the strategy has no such counter that survives its processes."""


def read_balance(running: Running) -> Balance:
    """Raises OSError or HTTPException when the counters cannot be read now."""
    number, stats = running.subject.number, running.strategy.stats()
    accepted = int(stats["accepted"])
    if running.subject.is_step:  # a step does not count the emails in flight
        return Balance(int(stats.get("waiting") or 0), accepted, None)
    if number == 4:  # only the worker's log has the count; with ?wait= it holds no email, because it does not retry
        waits = bool(running.subject.query)
        return Balance(0 if waits else queued_at_worker(running.strategy.make.tail(TAIL_BYTES)), accepted, None)
    if running.subject.on_rabbitmq:  # RabbitMQ reports no emails in flight and no totals
        return Balance(int(stats["waiting"]), accepted, None)
    if stats["waiting"] is None or stats["in_flight"] is None:
        raise OSError("the strategy cannot report its figures now")
    queued = int(stats["waiting"]) + int(stats["in_flight"])
    match number:
        case 3 | 5:
            return Balance(queued, accepted, stats["sent"] + stats["failed"] - running.other_jobs_failed)
        case 6:  # counted from the log and the positions of its consumers
            return Balance(queued, accepted, stats["events"] - queued)
        case _:  # strategies 1 and 2 count in the process that the faults kill
            return Balance(queued, accepted, None)


def queued_at_worker(log: str) -> int:
    """How many emails strategy 4's worker holds, by the line that it logs every five seconds. 1 if this may have
    changed since.
    """
    *_, newest = log.rpartition("subscribed to emailz\n")
    figures = list(_FIGURES.finditer(newest))
    later = newest[figures[-1].end() :] if figures else newest
    if _ACTIVITY.search(later):
        return 1
    return int(figures[-1][1]) + int(figures[-1][2]) if figures else 0


def given_up(running: Running) -> set[str]:
    """The ids of the emails that the strategy has given up. Raises RedisError, for JetStream OSError.

    Strategies 1 and 2 do not retry. An email that strategy 2 fails to send counts as lost.
    """
    number = running.subject.number
    if number in (3, 4) or running.subject.on_rabbitmq:
        return {found for scan in running.scans(_GAVE_UP) for (found,) in scan.matches()}
    if running.subject.settings.get("LOG") == "jetstream":
        return asyncio.run(_parked_in_jetstream(running.strategy.nats_url()))
    if number in (5, 6):
        url = running.strategy.redis_url()
        with running.redis() as redis:
            entries: Any = redis.lrange(f"{namespace_for(url)}:failed", 0, -1) if number == 5 else redis.hvals(PARKED)
        return {found for entry in entries for found in _ID.findall(entry.decode(errors="replace"))}
    return set()


async def _parked_in_jetstream(url: str) -> set[str]:
    """In a cluster each stream elects its leader by itself, so the parked events may be there later than the others."""
    async with JetStreamLog(url, LEASE_SECONDS) as log:
        deadline = time.monotonic() + ELECTION_SECONDS
        while True:
            try:
                parked = await log.parked("email", limit=1_000_000)
            except LogError as error:
                if time.monotonic() > deadline:
                    raise OSError(str(error)) from None
                await asyncio.sleep(POLL_SECONDS)
            else:
                return {found for one in parked for found in _ID.findall(one.element.decode(errors="replace"))}
