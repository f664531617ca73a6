"""Events that are claimed before their next attempt is due. The log pauses an event for at most LONGEST_PAUSE."""

import asyncio
from collections.abc import Sequence

from .errors import LOG_CALL_ERRORS
from .events import Claimed
from .interface import EventLog
from .leases import LONGEST_PAUSE

EARLY_SECONDS = 0.05  # an event that is due within this time is handled now


async def put_back_early(
    events: EventLog, consumer: str, claimed: Sequence[Claimed], failures: dict[str, int]
) -> list[Claimed]:
    """Put back the events that are not due yet, without counting an attempt, and return the others. Adds to `failures`
    how often each of these has failed, by position.

    If Redis does not answer, all are handled now: an early attempt costs less than waiting for the leases to end.
    """
    again = [one for one in claimed if one.attempts > 1]
    try:
        delays = await events.delays(consumer, again)
    except LOG_CALL_ERRORS:
        return list(claimed)
    due, early = [], []
    for one in claimed:
        seconds, failed = delays.get(one.position, (0.0, 0)) if one.attempts > 1 else (0.0, 0)
        if seconds > EARLY_SECONDS:
            early.append(events.put_back(one, min(seconds, LONGEST_PAUSE), tried=False))
        else:
            due.append(one)
            if failed:
                failures[one.position] = failed
    await asyncio.gather(*early, return_exceptions=True)  # after an error the event waits for its lease to end
    return due
