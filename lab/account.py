"""The account of a run: what was asked for, what was promised for it, and what became of it.

The words are those of the total-queue checker of Jepsen (https://github.com/jepsen-io/jepsen, jepsen.checker):

    attempted     asked for, whatever the answer
    acknowledged  accepted: the answer was 2xx
    ok            accepted and delivered
    failed        accepted, not delivered, and named by its id: in the strategy's failed list, or as given up in its log
    queued        still waiting or in flight, by the strategy's own books
    lost          accepted, and neither delivered nor failed
    duplicated    copies beyond the first of one Message-ID
    recovered     delivered, though the answer was no 2xx or never came
    unexpected    delivered, and never asked for: an unknown recipient, or a second email where one was asked for

`acknowledged = ok + failed + queued + lost` holds when the books are right and the run has settled. `lost` is found by
ids, not by subtraction, so that it can fail to hold.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from lab.mailbox import Arrival
from lab.steady import Record

NUMBERS = (
    "attempted acknowledged ok failed queued lost duplicated recovered unexpected".split()  # noqa: SIM905
)


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

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300

    def under_way(self, hit: Hit, before: int) -> bool:
        """Whether it was on its way when this was done; if it never came: whether it was asked for by then.

        And not more than `before` ns earlier: what was lost long before is not this fault's doing.
        """
        last = self.arrivals[-1] if self.arrivals else self.asked + before
        return self.asked <= hit.end and last >= hit.begin


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
    remarks: list[str] = field(default_factory=list)
    """Why it does not close, if it does not."""
    stories: list[Story] = field(default_factory=list)

    @property
    def closes(self) -> bool:
        return self.acknowledged == self.ok + self.failed + self.queued + self.lost

    def numbers(self) -> dict[str, int]:
        return {name: value for name, value in asdict(self).items() if name in NUMBERS}

    def lost_stories(self, failed: Collection[str]) -> list[Story]:
        return [s for s in self.stories if s.accepted and not s.arrivals and s.id not in failed]

    def to_dict(self) -> dict[str, Any]:
        return {**self.numbers(), "closes": self.closes, "remarks": self.remarks}


def account(
    records: Sequence[Record], arrivals: Sequence[Arrival], tag: str, failed: Collection[str] = (), queued: int = 0
) -> Account:
    """`arrivals` are those of this run alone; `failed` are ids that the strategy says it has given up."""
    by_recipient: dict[str, list[Arrival]] = {}
    for arrival in arrivals:
        by_recipient.setdefault(arrival.to, []).append(arrival)
    found = Account(attempted=len(records), queued=queued)
    in_doubt = 0
    for number, due, asked, answered, status, email_id in records:
        came = by_recipient.pop(f"{tag}-{number}@example.com", [])
        expected = email_id or (came[0].id if came else "")
        copies = tuple(arrival.at for arrival in came if arrival.id == expected)
        story = Story(due, asked, answered, status, expected, copies)
        found.stories.append(story)
        found.unexpected += len(came) - len(copies)
        found.duplicated += max(0, len(copies) - 1)
        if not story.accepted:
            found.recovered += bool(copies)
            continue
        found.acknowledged += 1
        if copies:
            found.ok += 1
            in_doubt += expected in failed
        elif expected in failed:
            found.failed += 1
        else:
            found.lost += 1
    found.unexpected += sum(len(Counter(a.id for a in strays)) for strays in by_recipient.values())
    if in_doubt:
        found.remarks.append(f"{in_doubt} in the failed list and delivered all the same: their replies were lost")
    if not found.closes:
        found.remarks.append(f"does not close: {queued} are still queued, by the strategy's own books")
    return found
