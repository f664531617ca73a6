"""The account of a run: what was asked for, what was promised for it, and what became of it.

The words are those of the total-queue checker of Jepsen (https://github.com/jepsen-io/jepsen, jepsen.checker):

    attempted     asked for, whatever the answer
    acknowledged  accepted: the answer was 2xx
    ok            accepted and delivered
    failed        accepted, not delivered, and given up by its id: in a failed list, parked, or named in a log
    queued        accepted, none of these, and still held, by the strategy's own counters
    lost          accepted, and none of these
    duplicated    copies beyond the first of one Message-ID
    recovered     delivered, though the answer was no 2xx or never came
    unexpected    delivered, and never asked for: an unknown recipient, or a second email where one was asked for

So `acknowledged = ok + failed + queued + lost`. What is lost is what is left over, so this sum says little. But it is
held against the strategy's own counters: how many it says it has accepted, and has done. How many those were, the load
generator, the mail server's journal and the failed list know.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.harness.mailbox import Arrival, Trouble
from lab.load.steady import Record

NUMBERS = ("attempted", "acknowledged", "ok", "failed", "queued", "lost", "duplicated", "recovered", "unexpected")


@dataclass(frozen=True, slots=True)
class Injection:
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
    arrivals: tuple[int, ...] = ()
    refused: tuple[int, ...] = ()
    """The codes by which the mail server has refused it, each time."""
    given_up: int | None = None
    """When the strategy was first seen to name it as given up; None: it has not."""

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300

    @property
    def failed(self) -> bool:
        return self.accepted and not self.arrivals and self.given_up is not None

    @property
    def missing(self) -> bool:
        return self.accepted and not self.arrivals and self.given_up is None


@dataclass(frozen=True)
class Counters:
    """What the strategy's own counters say, of the emails of this run."""

    queued: int = 0
    done: int | None = None
    """Different emails that it had, and has no more: sent or given up. None: it keeps no count, or lost it with the
    process that was killed."""
    accepted: int | None = None
    """Answers with 2xx, by the web server. None: it was killed, or a client did not wait for its answer."""


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
    counters: Counters = field(default_factory=Counters)
    stories: list[Story] = field(default_factory=list)

    @property
    def checked(self) -> bool:
        """Whether there was anything of the strategy's own to hold it against."""
        return self.counters.done is not None or self.counters.accepted is not None

    def gaps(self) -> list[str]:
        """Where it does not close; [] when it does."""
        gaps = []
        if self.acknowledged != (total := self.ok + self.failed + self.queued + self.lost):
            gaps.append(f"{self.acknowledged} accepted, and {total} accounted for")
        if self.counters.done not in (None, self.done):
            gaps.append(f"{self.counters.done} done by its own counters, and there are {self.done}")
        if self.counters.accepted not in (None, self.acknowledged):
            gaps.append(f"{self.counters.accepted} accepted by its own counters, and {self.acknowledged} such answers")
        return gaps

    def numbers(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in NUMBERS}

    def answers(self) -> dict[str, int]:
        """How many answers of each HTTP status there were; "none" when it never came."""
        counted = Counter(str(story.status or "none") for story in self.stories)
        return dict(sorted(counted.items()))

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.numbers(),
            "done": self.done,
            "counters": {"done": self.counters.done, "accepted": self.counters.accepted},
            "closes": not self.gaps(),
            "answers": self.answers(),
        }


def account(
    records: Sequence[Record],
    arrivals: Sequence[Arrival],
    tag: str,
    *,
    refusals: Sequence[Trouble] = (),
    given_up: Mapping[str, int] | None = None,
    counters: Counters = Counters(),
) -> Account:
    """`arrivals` and `refusals` are those since the run began; `given_up` are the ids that the strategy has named since
    then, each with the time when that was seen (ns).
    """
    given_up = given_up or {}
    by_recipient: dict[str, list[Arrival]] = {}
    for arrival in arrivals:
        by_recipient.setdefault(arrival.to, []).append(arrival)
    codes: dict[str, list[int]] = {}
    for refusal in refusals:
        codes.setdefault(refusal.to, []).append(int(refusal.what))
    found = Account(counters=counters, done=len({arrival.id for arrival in arrivals} | given_up.keys()))
    for number, due, asked, answered, status, email_id in records:
        to = f"{tag}-{number}@example.com"
        came, refused = by_recipient.pop(to, []), tuple(codes.get(to, ()))
        expected = email_id or (came[0].id if came else "")
        copies = tuple(arrival.at for arrival in came if arrival.id == expected)
        story = Story(due, asked, answered, status, expected, copies, refused, given_up.get(expected))
        found.stories.append(story)
        found.unexpected += len(came) - len(copies)
    found.unexpected += sum(len({arrival.id for arrival in strays}) for strays in by_recipient.values())
    _count(found)
    return found


def _count(found: Account) -> None:
    stories = found.stories
    accepted = [story for story in stories if story.accepted]
    found.attempted = len(stories)
    found.acknowledged = len(accepted)
    found.ok = sum(bool(story.arrivals) for story in accepted)
    found.failed = sum(story.failed for story in accepted)
    found.queued = found.counters.queued
    found.lost = max(0, sum(story.missing for story in accepted) - found.queued)
    found.duplicated = sum(max(0, len(story.arrivals) - 1) for story in stories)
    found.recovered = sum(bool(story.arrivals) and not story.accepted for story in stories)
