"""The account of a run: what was asked for, what was promised for it, and what became of it.

The words are those of the total-queue checker of Jepsen (https://github.com/jepsen-io/jepsen, jepsen.checker):

    attempted     asked for, whatever the answer
    acknowledged  accepted: the answer was 2xx
    ok            accepted and delivered
    failed        accepted, not delivered, and given up by its id: in a failed list, parked, or named in a log
    queued        accepted, none of these, and still held, by the strategy's own books
    lost          accepted, and none of these
    duplicated    copies beyond the first of one Message-ID
    recovered     delivered, though the answer was no 2xx or never came
    unexpected    delivered, and never asked for: an unknown recipient, or a second email where one was asked for

So `acknowledged = ok + failed + queued + lost`. What can fail to close is the comparison with the strategy's own books,
where it keeps some: it says how many it has done; the mail server's journal and the failed list say how many it has.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.mailbox import Arrival
from lab.steady import Record

NUMBERS = ("attempted", "acknowledged", "ok", "failed", "queued", "lost", "duplicated", "recovered", "unexpected")

SLACK = 1_000_000_000
"""ns: an email that had come so long before a fault was acknowledged; without a fault that takes a tenth of it."""
UNSENT = 3_000_000_000
"""ns: so long before a fault an email may have been asked for that never came. After an earlier fault it may have
waited for a session with the mail server as long as a send may take (SEND_SECONDS in hits.py)."""
GRACE = 200_000_000
"""ns: so long after a fault somebody may still believe that all is well, as Redis of a subscriber that was killed."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A fault that was done, from when to when: ns, perf_counter_ns."""

    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Story:
    """What is known of one email, in ns; `arrivals` in order, empty when it never came."""

    due: int
    asked: int
    answered: int
    status: int
    id: str
    arrivals: tuple[int, ...]
    given_up: bool = False

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300

    @property
    def lost(self) -> bool:
        return self.accepted and not self.arrivals and not self.given_up

    def under_way(self, hit: Hit, slack: int = SLACK) -> bool:
        """Whether it was asked for before the end of this fault, and at its beginning had not come, or just come.

        `slack` is that "just", in ns. What never came must have been asked for not long before the fault.
        """
        in_time = self.arrivals[0] >= hit.begin - slack if self.arrivals else self.asked >= hit.begin - UNSENT
        return in_time and self.asked <= hit.end + GRACE

    def waited_through(self, hit: Hit) -> bool:
        """Whether it was there before the end of this fault; for what never came."""
        return self.asked <= hit.end + GRACE


@dataclass
class Account:
    attempted: int = 0
    acknowledged: int = 0
    ok: int = 0
    failed: int = 0
    queued: int = 0
    lost: int = 0
    duplicated: int = 0
    recovered: int = 0
    unexpected: int = 0
    done: int = 0
    """Different emails that were delivered or given up, whatever the answer was."""
    books: int | None = None
    """The same by the strategy's own counters; None when it has none, or they died with their process."""
    remarks: list[str] = field(default_factory=list)
    stories: list[Story] = field(default_factory=list)

    @property
    def closes(self) -> bool:
        total = self.ok + self.failed + self.queued + self.lost
        return self.acknowledged == total and self.books in (None, self.done)

    def numbers(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in NUMBERS}

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.numbers(),
            "done": self.done,
            "books": self.books,
            "closes": self.closes,
            "remarks": self.remarks,
        }


def account(
    records: Sequence[Record],
    arrivals: Sequence[Arrival],
    tag: str,
    given_up: Collection[str] = (),
    queued: int = 0,
    books: int | None = None,
) -> Account:
    """`arrivals` are those since the run began; `given_up` are ids that the strategy has named since then.

    `queued` and `books` are the strategy's own figures: what it holds, and how many it has sent or given up.
    """
    by_recipient: dict[str, list[Arrival]] = {}
    for arrival in arrivals:
        by_recipient.setdefault(arrival.to, []).append(arrival)
    found = Account(books=books, done=len({arrival.id for arrival in arrivals} | set(given_up)))
    for number, due, asked, answered, status, email_id in records:
        came = by_recipient.pop(f"{tag}-{number}@example.com", [])
        expected = email_id or (came[0].id if came else "")
        copies = tuple(arrival.at for arrival in came if arrival.id == expected)
        found.stories.append(Story(due, asked, answered, status, expected, copies, expected in given_up))
        found.unexpected += len(came) - len(copies)
    found.unexpected += sum(len({arrival.id for arrival in strays}) for strays in by_recipient.values())
    _count(found, queued)
    if in_doubt := sum(story.given_up and bool(story.arrivals) for story in found.stories):
        found.remarks.append(f"{in_doubt} given up and delivered all the same: every reply to them was lost")
    if not found.closes:
        found.remarks.append(f"the books say {books} done, and there are {found.done}")
    return found


def _count(found: Account, queued: int) -> None:
    stories = found.stories
    accepted = [story for story in stories if story.accepted]
    missing = sum(story.lost for story in accepted)
    found.attempted = len(stories)
    found.acknowledged = len(accepted)
    found.ok = sum(bool(story.arrivals) for story in accepted)
    found.failed = sum(story.given_up and not story.arrivals for story in accepted)
    found.queued = min(queued, missing)
    found.lost = missing - found.queued
    found.duplicated = sum(max(0, len(story.arrivals) - 1) for story in stories)
    found.recovered = sum(bool(story.arrivals) and not story.accepted for story in stories)
