"""What a strategy says of itself: what it holds, what it has done, what it has given up."""

import asyncio
import re
from dataclasses import dataclass
from typing import Any

from eventlog.errors import LogError
from eventlog.jetstream import JetStreamLog
from lab.faults.running import Running

LEASE_SECONDS = 10.0  # a log needs one; nothing is claimed here
PARKED = "eventlog:parked:{email}"  # of strategy 6: a hash

_ID = re.compile(r"<[^<>\s\"]+@[^<>\s\"]+>")
_GAVE_UP = re.compile(r"gave up (<[^>]+>) after")
_FIGURES = re.compile(r"accepted \d+, .*, waiting (\d+), in flight (\d+),")
_AT_WORK = re.compile(r"\] [\d:.]+ (sent <|<[^>]+> again in)")


@dataclass(frozen=True)
class Balance:
    """Of all emails that it ever had."""

    queued: int
    accepted: int
    """Since its web server was started."""
    done: int | None
    """Sent or given up; None: it keeps no count that outlives a process."""


def read_balance(running: Running) -> Balance:
    """Raises OSError or HTTPException when it cannot be read now."""
    number, stats = running.subject.number, running.strategy.stats()
    accepted = int(stats["accepted"])
    if running.subject.is_step:  # it keeps no count of what is in flight
        return Balance(int(stats.get("waiting") or 0), accepted, None)
    if number == 4:  # only its worker knows; with ?wait= there is nothing to know, as nothing is tried again
        waits = bool(running.subject.query)
        return Balance(0 if waits else queued_at_worker(running.strategy.make.text()), accepted, None)
    if stats["waiting"] is None or stats["in_flight"] is None:
        raise OSError("the strategy does not know its own figures just now")
    queued = int(stats["waiting"]) + int(stats["in_flight"])
    match number:
        case 3 | 5:
            return Balance(queued, accepted, stats["sent"] + stats["failed"] - running.other_jobs_failed)
        case 6:  # the log itself is the book, and how far its readers are
            return Balance(queued, accepted, stats["events"] - queued)
        case _:  # strategies 1 and 2 count in the process that is killed
            return Balance(queued, accepted, None)


def queued_at_worker(log: str) -> int:
    """What strategy 4's worker has in its hands, which only its log says, five seconds late; 1 if there may be some."""
    *_, newest = log.rpartition("subscribed to emailz\n")
    figures = list(_FIGURES.finditer(newest))
    behind = newest[figures[-1].end() :] if figures else newest
    if _AT_WORK.search(behind):
        return 1
    return int(figures[-1][1]) + int(figures[-1][2]) if figures else 0


def given_up(running: Running) -> set[str]:
    """The ids that the strategy names as given up. (Strategy 2 names them too, but keeps nothing to try again.)

    Raises RedisError, or OSError for JetStream.
    """
    number = running.subject.number
    if number in (3, 4):
        return {found for path in running.outputs for found in _GAVE_UP.findall(path.read_text(errors="replace"))}
    if running.subject.settings.get("LOG") == "jetstream":
        return asyncio.run(_parked_in_jetstream(running.strategy.nats_url()))
    if number in (5, 6):
        with running.redis() as redis:
            entries: Any = redis.lrange("resque:failed", 0, -1) if number == 5 else redis.hvals(PARKED)
        return {found for entry in entries for found in _ID.findall(entry.decode(errors="replace"))}
    return set()


async def _parked_in_jetstream(url: str) -> set[str]:
    try:
        async with JetStreamLog(url, LEASE_SECONDS) as log:
            parked = await log.parked("email", limit=1_000_000)
    except LogError as error:
        raise OSError(str(error)) from None
    return {found for one in parked for found in _ID.findall(one.element.decode(errors="replace"))}
