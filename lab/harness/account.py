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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lab.harness.mailbox import Arrival, MailFault
from lab.load.steady import Record

NUMBERS = ("attempted", "acknowledged", "ok", "failed", "queued", "lost", "duplicated", "recovered", "unexpected")

PARTS = ("attempted", "acknowledged", "ok", "failed", "missing", "duplicated", "recovered")
"""What a single email adds to the account. `missing` is split into `queued` and `lost`."""


@dataclass(frozen=True, slots=True)
class Injection:
    """When an injected fault began and ended, in ns (perf_counter_ns)."""

    begin: int
    end: int
    unreplicated: int = 0
    """In a failover: how many bytes the old primary had written that the new one had not received."""


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

    def parts(self) -> tuple[int, ...]:
        """How much this email adds to each of PARTS."""
        arrived = bool(self.arrivals)
        copies = max(0, len(self.arrivals) - 1)
        recovered = arrived and not self.accepted
        return 1, self.accepted, self.accepted and arrived, self.failed, self.missing, copies, recovered


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
    ledger = Ledger(tag)
    for email_id, at in (given_up or {}).items():
        ledger.give_up(email_id, at)
    for number, due, asked, answered, status, email_id in records:
        ledger.ask(number, due, asked)
        ledger.answer(number, answered, status, email_id)
    for refusal in refusals:
        ledger.refuse(refusal)
    for arrival in arrivals:
        ledger.arrive(arrival)
    return ledger.account(counters)


@dataclass(slots=True)
class Email:
    """What is known so far of one requested email."""

    number: int
    due: int
    asked: int
    answered: int = 0
    status: int = 0
    id: str = ""
    came: list[Arrival] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)

    @property
    def expected_id(self) -> str:
        """The id in the answer. An email without an answer has the id with which it arrived first."""
        return self.id or (self.came[0].id if self.came else "")


class Ledger:
    """The account of the emails to <TAG>-<number>@example.com, kept while the run goes on.

    Each call takes one observation, in any order, and costs the same however many emails there are. `numbers` has the
    sums of `Outcome.parts` so far, and `unexpected`.
    """

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.numbers: Counter[str] = Counter()
        self.emails: dict[int, Email] = {}
        self._numbers_by_id: dict[str, int] = {}
        self._given_up: dict[str, int] = {}
        self._arrived_ids: set[str] = set()
        self._unknown: set[tuple[str, str]] = set()  # (recipient, id) of emails that were not requested

    def ask(self, number: int, due: int, asked: int) -> None:
        self.emails[number] = Email(number, due, asked)
        self._add(self.emails[number], 1)

    def answer(self, number: int, answered: int, status: int, email_id: str) -> None:
        """The caller has its answer; status 0: none came."""
        email = self.emails[number]
        with self._changing(email):
            email.answered, email.status, email.id = answered, status, email_id

    def arrive(self, arrival: Arrival) -> int | None:
        """Returns the number of the email; None if it was not requested."""
        self._arrived_ids.add(arrival.id)
        if (email := self._email_to(arrival.to)) is None:
            self._unknown.add((arrival.to, arrival.id))
            return None
        with self._changing(email):
            email.came.append(arrival)
        return email.number

    def refuse(self, refusal: MailFault) -> None:
        """The mail server has refused this email with a code."""
        if (email := self._email_to(refusal.to)) is not None:
            email.refused.append(int(refusal.what))

    def give_up(self, email_id: str, at: int) -> int | None:
        """The strategy has given this email up. Returns its number; None if its id is not in an answer so far."""
        number = self._numbers_by_id.get(email_id)
        if number is None:
            self._given_up.setdefault(email_id, at)
            return None
        with self._changing(self.emails[number]):
            self._given_up.setdefault(email_id, at)
        return number

    def outcome(self, email: Email) -> Outcome:
        expected = email.expected_id
        copies = tuple(arrival.at for arrival in email.came if arrival.id == expected)
        refused, given_up = tuple(email.refused), self._given_up.get(expected)
        return Outcome(email.due, email.asked, email.answered, email.status, expected, copies, refused, given_up)

    def account(self, counters: Counters = Counters()) -> Account:
        """The account, with the strategy's own counters of the same moment."""
        numbers = self.numbers
        return Account(
            **{name: numbers[name] for name in NUMBERS if name in PARTS},
            queued=counters.queued,
            lost=max(0, numbers["missing"] - counters.queued),
            unexpected=numbers["unexpected"] + len(self._unknown),
            done=len(self._arrived_ids | self._given_up.keys()),
            counters=counters,
            outcomes=[self.outcome(email) for email in self.emails.values()],
        )

    def _email_to(self, recipient: str) -> Email | None:
        name, _, _ = recipient.partition("@")
        tag, _, number = name.rpartition("-")
        return self.emails.get(int(number)) if tag == self.tag and number.isdigit() else None

    @contextmanager
    def _changing(self, email: Email) -> Iterator[None]:
        """Count the email again after the change."""
        self._add(email, -1)
        yield
        self._add(email, 1)
        self._numbers_by_id[email.expected_id] = email.number

    def _add(self, email: Email, sign: int) -> None:
        outcome, numbers = self.outcome(email), self.numbers
        for name, count in zip(PARTS, outcome.parts(), strict=True):
            if count:
                numbers[name] += sign * count
        if copies := len(email.came) - len(outcome.arrivals):
            numbers["unexpected"] += sign * copies


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
