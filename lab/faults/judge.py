"""Checks, email by email, whether what was measured keeps the promise.

Only an email that was *in flight* at a fault may be lost or arrive twice. In flight means: it was requested before the
fault ended, and when the fault began it had not arrived, or had arrived so recently that it was perhaps not yet
acknowledged. For an email that never arrived, the lab cannot see how far it had got. But a strategy sends emails about
in order: if more later emails had arrived before the fault than a strategy sends at a time, the email was already
lost, and not by this fault.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise

from common.mail.sender import WINDOW
from common.settings import Settings
from lab.faults.promises import ATTEMPTS, Bound, GivenUp, Promise
from lab.harness.account import Account, Injection, Outcome

SLACK_NS = 1_000_000_000
"""An email that arrived longer than this before a fault was acknowledged. Without a fault, that takes a tenth of it."""
GRACE_NS = 200_000_000
"""How long after a fault it may still have an effect. Redis, for one, counts a killed subscriber for a moment."""
MAX_CONCURRENT = int(Settings.model_fields["smtp_sessions"].default)
"""Emails that a strategy sends at a time."""


def broken_promises(promised: Promise, found: Account, faults: Sequence[Injection]) -> list[str]:
    """In what way the account breaks the promise; [] when it keeps it."""
    reasons = [
        *_lost(promised, found, faults),
        *_twice(promised, found, faults),
        *_given_up(promised, found, faults),
    ]
    if found.unexpected:
        reasons.append(f"{found.unexpected} sent without a request")
    others = {status: count for status, count in found.answers().items() if status[0] != "2"}
    reasons += [f"{count} answers {status}" for status, count in others.items() if status not in promised.refusals]
    return reasons + [f"the account does not close: {gap}" for gap in found.gaps()]


def _lost(promised: Promise, found: Account, faults: Sequence[Injection]) -> Iterator[str]:
    missing = [outcome for outcome in found.outcomes if outcome.missing]
    bound = promised.lost
    if bound is Bound.NONE and found.lost:
        yield f"{found.lost} lost, promised: none"
    elif bound is Bound.NOT_REPLICATED:
        yield from _more_than_not_replicated(missing, faults)
    elif bound is Bound.REFUSED and (not_refused := [o for o in missing if not o.refused]):
        yield f"{len(not_refused)} lost that the mail server had not refused"
    elif unexplained := unexplained_losses(missing, found, faults):
        yield f"{len(unexplained)} lost that were not in flight at any fault"
    elif bound is Bound.PER_FAULT and found.lost > WINDOW * len(faults):
        yield f"{found.lost} lost, promised: at most {WINDOW} for each of {len(faults)} faults"


def _more_than_not_replicated(missing: Sequence[Outcome], faults: Sequence[Injection]) -> Iterator[str]:
    """Each lost email was accepted during a fault, and at least its id is in the bytes that were not replicated."""
    others = [o for o in missing if not any(f.begin - GRACE_NS <= o.answered <= f.end + GRACE_NS for f in faults)]
    if others:
        yield f"{len(others)} lost that were accepted before or after the faults"
    least, most = sum(len(outcome.id) for outcome in missing), sum(fault.unreplicated for fault in faults)
    if least > most:
        yield f"{len(missing)} lost, whose ids alone have {least:,} bytes; {most:,} bytes were not replicated"


def unexplained_losses(missing: Sequence[Outcome], found: Account, faults: Sequence[Injection]) -> list[Outcome]:
    """The missing emails that were in flight at no fault."""
    arrived = [
        sorted(s.asked for s in found.outcomes if s.arrivals and s.arrivals[0] < fault.begin) for fault in faults
    ]

    def was_in_flight(outcome: Outcome, fault: Injection, asked_of_arrived: list[int]) -> bool:
        overtaken_by = len(asked_of_arrived) - bisect_right(asked_of_arrived, outcome.asked)
        return outcome.asked <= fault.end + GRACE_NS and overtaken_by <= MAX_CONCURRENT

    return [outcome for outcome in missing if not any(map(was_in_flight, [outcome] * len(faults), faults, arrived))]


def _twice(promised: Promise, found: Account, faults: Sequence[Injection]) -> Iterator[str]:
    copies = found.duplicated
    if promised.twice is Bound.NONE:
        if copies:
            yield f"{copies} twice, promised: none"
        return
    repeated = [outcome for outcome in found.outcomes if len(outcome.arrivals) > 1]
    if unexplained := sum(unexplained_copies(outcome, faults, promised.copies) for outcome in repeated):
        yield f"{unexplained} twice that were not in flight at any fault"
    elif promised.twice is Bound.PER_FAULT and copies > WINDOW * len(faults):
        yield f"{copies} twice, promised: at most {WINDOW} for each of {len(faults)} faults"


def unexplained_copies(outcome: Outcome, faults: Sequence[Injection], for_each: int) -> int:
    """Copies beyond the first that no fault explains. Each fault explains at most `for_each` copies of one email.

    A fault explains a copy that arrived after the fault began, if the copy before it arrived no more than SLACK_NS
    before the fault began, and the email was requested before the fault ended.
    """
    left = [for_each] * len(faults)
    unexplained = 0
    for before, copy in pairwise(outcome.arrivals):
        for number, fault in enumerate(faults):
            if (
                left[number]
                and before >= fault.begin - SLACK_NS
                and copy >= fault.begin
                and outcome.asked <= fault.end + GRACE_NS
            ):
                left[number] -= 1
                break
        else:
            unexplained += 1
    return unexplained


def _given_up(promised: Promise, found: Account, faults: Sequence[Injection]) -> Iterator[str]:
    failed = [outcome for outcome in found.outcomes if outcome.failed]
    if too_early := [outcome for outcome in failed if not _may_be_given_up(promised.given_up, outcome, faults)]:
        yield f"{len(too_early)} given up, promised: {promised.given_up.value or 'none'}"
    delivered = [o for o in found.outcomes if o.accepted and o.arrivals and o.given_up is not None]
    if delivered and promised.twice is Bound.NONE:
        yield f"{len(delivered)} given up that had been delivered"


def _may_be_given_up(when: GivenUp, outcome: Outcome, faults: Sequence[Injection]) -> bool:
    assert outcome.given_up is not None
    match when:
        case GivenUp.NEVER:
            return False
        case GivenUp.REFUSED:
            return 550 in outcome.refused
        case GivenUp.REFUSED_OFTEN:
            return sum(400 <= code < 500 for code in outcome.refused) >= ATTEMPTS
        case GivenUp.CRASHED:
            during = [f for f in faults if outcome.asked <= f.end + GRACE_NS and f.begin <= outcome.given_up]
            return len(during) >= ATTEMPTS
