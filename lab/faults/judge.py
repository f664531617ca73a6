"""Whether what was measured is what was promised, judged email by email.

What may be lost, or come twice, must have been *under way* at a fault: asked for before its end, and at its beginning
not yet there, or there for so short a time that it was perhaps not yet acknowledged. Of what never came, nobody sees
how far it had got. But emails are sent about in order: one that more others have overtaken than can be sent at a time
was lost before, and by no fault.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise

from common.mail.sender import WINDOW
from common.settings import Settings
from lab.faults.promises import ATTEMPTS, Bound, GivenUp, Promise
from lab.harness.account import Account, Injection, Story

SLACK = 1_000_000_000
"""ns: an email that had come so long before a fault was acknowledged; without a fault that takes a tenth of it."""
GRACE = 200_000_000
"""ns: so long after a fault somebody may still believe that all is well, as Redis of a subscriber that was killed."""
AT_A_TIME = int(Settings.model_fields["smtp_sessions"].default)
"""Emails that a strategy sends at a time."""


def broken_promises(promised: Promise, found: Account, faults: Sequence[Injection]) -> list[str]:
    """In what way what was measured is not what was promised; [] when it is."""
    reasons = [
        *_lost(promised, found, faults),
        *_twice(promised, found, faults),
        *_given_up(promised, found, faults),
    ]
    if found.unexpected:
        reasons.append(f"{found.unexpected} sent that nobody has asked for")
    others = {status: count for status, count in found.answers().items() if status[0] != "2"}
    reasons += [f"{count} answers {status}" for status, count in others.items() if status not in promised.refusals]
    return reasons + [f"the account does not close: {gap}" for gap in found.gaps()]


def _lost(promised: Promise, found: Account, faults: Sequence[Injection]) -> Iterator[str]:
    missing = [story for story in found.stories if story.missing]
    bound = promised.lost
    if bound is Bound.NONE and found.lost:
        yield f"{found.lost} lost, promised: none"
    elif bound is Bound.REFUSED and (strays := [story for story in missing if not story.refused]):
        yield f"{len(strays)} lost that the mail server had not refused"
    elif strays := strays_among(missing, found, faults):
        yield f"{len(strays)} lost that were not under way at any fault"
    elif bound is Bound.IN_HANDS and found.lost > WINDOW * len(faults):
        yield f"{found.lost} lost, promised: at most {WINDOW} for each of {len(faults)} faults"


def strays_among(missing: Sequence[Story], found: Account, faults: Sequence[Injection]) -> list[Story]:
    """What never came and was under way at no fault."""
    arrived = [sorted(s.asked for s in found.stories if s.arrivals and s.arrivals[0] < fault.begin) for fault in faults]

    def was_under_way(story: Story, fault: Injection, asked_of_arrived: list[int]) -> bool:
        overtaken_by = len(asked_of_arrived) - bisect_right(asked_of_arrived, story.asked)
        return story.asked <= fault.end + GRACE and overtaken_by <= AT_A_TIME

    return [story for story in missing if not any(map(was_under_way, [story] * len(faults), faults, arrived))]


def _twice(promised: Promise, found: Account, faults: Sequence[Injection]) -> Iterator[str]:
    copies = found.duplicated
    if promised.twice is Bound.NONE:
        if copies:
            yield f"{copies} twice, promised: none"
        return
    repeated = [story for story in found.stories if len(story.arrivals) > 1]
    if strays := sum(unexplained_copies(story, faults, promised.copies) for story in repeated):
        yield f"{strays} twice that were not under way at any fault"
    elif promised.twice is Bound.IN_HANDS and copies > WINDOW * len(faults):
        yield f"{copies} twice, promised: at most {WINDOW} for each of {len(faults)} faults"


def unexplained_copies(story: Story, faults: Sequence[Injection], for_each: int) -> int:
    """Copies beyond the first for which there was no fault, or not enough of them.

    A fault explains a copy that came after it had begun, of an email that had come before that just then, if at all.
    """
    left = [for_each] * len(faults)
    unexplained = 0
    for before, copy in pairwise(story.arrivals):
        for number, fault in enumerate(faults):
            if (
                left[number]
                and before >= fault.begin - SLACK
                and copy >= fault.begin
                and story.asked <= fault.end + GRACE
            ):
                left[number] -= 1
                break
        else:
            unexplained += 1
    return unexplained


def _given_up(promised: Promise, found: Account, faults: Sequence[Injection]) -> Iterator[str]:
    failed = [story for story in found.stories if story.failed]
    if strays := [story for story in failed if not _may_be_given_up(promised.given_up, story, faults)]:
        yield f"{len(strays)} given up, promised: {promised.given_up.value or 'none'}"
    in_doubt = [story for story in found.stories if story.accepted and story.arrivals and story.given_up is not None]
    if in_doubt and promised.twice is Bound.NONE:
        yield f"{len(in_doubt)} given up that had been delivered"


def _may_be_given_up(when: GivenUp, story: Story, faults: Sequence[Injection]) -> bool:
    assert story.given_up is not None
    match when:
        case GivenUp.NEVER:
            return False
        case GivenUp.REFUSED:
            return 550 in story.refused
        case GivenUp.REFUSED_OFTEN:
            return sum(400 <= code < 500 for code in story.refused) >= ATTEMPTS
        case GivenUp.CRASHED:
            return (
                sum(story.asked <= fault.end + GRACE and fault.begin <= story.given_up for fault in faults) >= ATTEMPTS
            )
