"""The account of a run: how many emails were requested, accepted and delivered.

The terms are those of Jepsen's total-queue checker (https://github.com/jepsen-io/jepsen, jepsen.checker):

    attempted     requested, whatever the answer was
    acknowledged  accepted: the answer was 2xx
    ok            accepted and delivered
    failed        accepted, not delivered, and given up: its id is in a failed list, parked, or in a log
    queued        accepted, none of the above, and still held, by the strategy's own counters
    lost          accepted, and none of the above
    duplicated    copies of a Message-ID beyond the first
    recovered     delivered, although the answer was not 2xx or did not come
    unexpected    delivered without a request: to an unknown recipient, or a second email for one request

So `acknowledged = ok + failed + queued + lost`. As `lost` is the remainder, this sum alone proves little, so the
account is also compared with the strategy's own counters of accepted and of finished emails. The lab's own numbers come
from the load generator, the mail server's journal and the failed list.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lab.harness.mailbox import Arrival, MailFault
from lab.load.steady import Record

NUMBERS = ("attempted", "acknowledged", "ok", "failed", "queued", "lost", "duplicated", "recovered", "unexpected")


@dataclass(frozen=True, slots=True)
class Injection:
    """When an injected fault began and ended, in ns (perf_counter_ns)."""

    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened to one requested email. Times are in ns; `arrivals` are in order, and empty if it never arrived."""

    due: int
    asked: int
    answered: int
    status: int
    id: str
    arrivals: tuple[int, ...] = ()
    refused: tuple[int, ...] = ()
    """The code of each refusal by the mail server."""
    given_up: int | None = None
    """When the lab first saw that the strategy had given it up; None: never."""

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
    """The strategy's own counters, for the emails of this run."""

    queued: int = 0
    done: int | None = None
    """Different emails that it has sent or given up. None: it does not count them, or the count was lost with a
    process that was killed."""
    accepted: int | None = None
    """The web server's answers with 2xx. None: it was killed, or a client did not wait for its answer."""


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
    """Different emails that were delivered or given up, whatever their answers were."""
    counters: Counters = field(default_factory=Counters)
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def checked(self) -> bool:
        """Whether the strategy had a counter to compare the account with."""
        return self.counters.done is not None or self.counters.accepted is not None

    def gaps(self) -> list[str]:
        """Numbers that should be equal and differ; [] when the account closes."""
        gaps = []
        if self.acknowledged != (total := self.ok + self.failed + self.queued + self.lost):
            gaps.append(f"{self.acknowledged} accepted, but {total} accounted for")
        if self.counters.done not in (None, self.done):
            gaps.append(f"{self.counters.done} done by the strategy's counters, but the lab counts {self.done}")
        if self.counters.accepted not in (None, self.acknowledged):
            counted = f"the lab counts {self.acknowledged}"
            gaps.append(f"{self.counters.accepted} accepted by the strategy's counters, but {counted}")
        return gaps

    def numbers(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in NUMBERS}

    def answers(self) -> dict[str, int]:
        """How many answers had each HTTP status; "none" counts the answers that never came."""
        counted = Counter(str(outcome.status or "none") for outcome in self.outcomes)
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
    refusals: Sequence[MailFault] = (),
    given_up: Mapping[str, int] | None = None,
    counters: Counters = Counters(),
) -> Account:
    """The account of the emails to <TAG>-<number>@example.com.

    `arrivals` and `refusals` are those since the run began. `given_up` has the ids of the emails that the strategy has
    given up since then, each with the time when the lab saw that (ns).
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
        outcome = Outcome(due, asked, answered, status, expected, copies, refused, given_up.get(expected))
        found.outcomes.append(outcome)
        found.unexpected += len(came) - len(copies)
    found.unexpected += sum(len({arrival.id for arrival in unknown}) for unknown in by_recipient.values())
    _count(found)
    return found


@dataclass(frozen=True)
class IdAccount:
    """An account by ids alone, without times: how many emails were accepted, delivered, and so on."""

    accepted: int
    delivered: int
    lost: int
    duplicated: int
    unexpected: int


def compare_ids(accepted: Sequence[str], delivered: Sequence[str]) -> IdAccount:
    """`accepted` are the ids in the answers, `delivered` those at the mail server, copies included."""
    return IdAccount(
        accepted=len(accepted),
        delivered=len(delivered),
        lost=len(set(accepted) - set(delivered)),
        duplicated=len(delivered) - len(set(delivered)),
        unexpected=len(set(delivered) - set(accepted)),
    )


def _count(found: Account) -> None:
    outcomes = found.outcomes
    accepted = [outcome for outcome in outcomes if outcome.accepted]
    found.attempted = len(outcomes)
    found.acknowledged = len(accepted)
    found.ok = sum(bool(outcome.arrivals) for outcome in accepted)
    found.failed = sum(outcome.failed for outcome in accepted)
    found.queued = found.counters.queued
    found.lost = max(0, sum(outcome.missing for outcome in accepted) - found.queued)
    found.duplicated = sum(max(0, len(outcome.arrivals) - 1) for outcome in outcomes)
    found.recovered = sum(bool(outcome.arrivals) and not outcome.accepted for outcome in outcomes)
