"""The account of one lane while it grows, and the state of each email.

The account is lab/harness/account.py, as in `make faults`. What the lab adds is a split of the missing emails, those
accepted and neither delivered nor given up, so that the page's numbers close at every moment:

    accepted = delivered + failed + in flight + waiting + lost + not yet known

in flight      the mail server has their recipient and has not answered the message (journal of lab/harness/inbox.py)
waiting        held by the strategy's own counters, and not in flight
lost           the lane has settled, or the strategy has held fewer than are missing for longer than SURE_SECONDS
not yet known  the rest: the strategy cannot know, cannot be asked now, or was asked a moment ago
"""

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from lab.harness.account import Email, Ledger
from lab.harness.counters import Balance
from lab.harness.figures import percentile
from lab.harness.mailbox import Arrival, Attempt, MailFault

SURE_SECONDS = 3.0
RECENT = 100  # emails that count for the times


@dataclass
class Race:
    """How far the emails of one burst have come. Times in ms since the burst."""

    first: int
    count: int
    begin: int
    answered: int = 0
    arrived: int = 0
    answered_ms: float = 0.0
    arrived_ms: float = 0.0

    def __contains__(self, number: int) -> bool:
        return self.first <= number < self.first + self.count

    def to_dict(self) -> dict[str, Any]:
        names = ("count", "answered", "arrived", "answered_ms", "arrived_ms")
        return {name: round(getattr(self, name), 1) for name in names}


@dataclass
class Bookkeeping:
    tag: str
    ledger: Ledger = field(init=False)
    changed: set[int] = field(default_factory=set)
    """The numbers of the emails whose state has changed since the last frame."""
    flights: dict[int, int] = field(default_factory=dict)
    """The emails that the mail server is taking now, and the number of attempts so far."""
    late: int = 0
    """Emails of an earlier account that have arrived during this one."""
    race: Race | None = None

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.tag)
        self._missing: dict[int, float] = {}  # number -> when it was accepted (monotonic), oldest first
        self._lost: set[int] = set()
        self._attempts: dict[int, int] = {}
        self._newest_flight = 0  # when it began (ns)
        self._held: deque[tuple[float, int]] = deque()
        self._balance: Balance | None = None
        self._answer_ns: deque[int] = deque(maxlen=RECENT)
        self._arrival_ns: deque[int] = deque(maxlen=RECENT)

    # Observations

    def ask(self, number: int, due: int, asked: int) -> None:
        self.ledger.ask(number, due, asked)
        self.changed.add(number)

    def answer(self, number: int, answered: int, status: int, email_id: str) -> None:
        self.ledger.answer(number, answered, status, email_id)
        email = self.ledger.emails[number]
        if answered:
            self._answer_ns.append(answered - email.due)
        if self.race and number in self.race:
            self.race.answered += 1
            self.race.answered_ms = (time.perf_counter_ns() - self.race.begin) / 1e6
        if self.ledger.outcome(email).missing:
            self._missing[number] = time.monotonic()
        self.changed.add(number)

    def note(self, entry: Arrival | MailFault | Attempt) -> None:
        """Take one line of the mail server's journal that is about this lane."""
        number = int(entry.to.partition("@")[0].rpartition("-")[2])
        if not entry.to.startswith(f"{self.tag}-") or number not in self.ledger.emails:
            self.late += isinstance(entry, Arrival)
            return
        if isinstance(entry, Attempt) and entry.begins:
            self._attempts[number] = self.flights[number] = self._attempts.get(number, 0) + 1
            self._newest_flight = entry.at
        elif isinstance(entry, Arrival):
            self._arrive(number, entry)
        elif isinstance(entry, Attempt) or entry.what.isdigit():
            self.flights.pop(number, None)
            if isinstance(entry, MailFault):
                self.ledger.refuse(entry)
        self.changed.add(number)

    def _arrive(self, number: int, arrival: Arrival) -> None:
        email = self.ledger.emails[number]
        if not email.came:
            self._arrival_ns.append(arrival.at - email.due)
            if self.race and number in self.race:
                self.race.arrived += 1
                self.race.arrived_ms = (arrival.at - self.race.begin) / 1e6
        self.ledger.arrive(arrival)
        self._forget(number)

    def _forget(self, number: int) -> None:
        self.flights.pop(number, None)
        self._missing.pop(number, None)
        self._lost.discard(number)

    def give_up(self, email_id: str) -> None:
        number = self.ledger.give_up(email_id, time.perf_counter_ns())
        if number is not None and not self.ledger.outcome(self.ledger.emails[number]).missing:
            self._forget(number)
            self.changed.add(number)

    def take_balance(self, balance: Balance | None, *, complete: bool) -> None:
        """The strategy's counters now. `complete`: they count every email that it holds, also those in flight."""
        now, self._balance = time.monotonic(), balance
        if balance is None or not complete:
            self._held.clear()
            return
        self._held.append((now, balance.queued))
        if now - self._held[0][0] < SURE_SECONDS:
            return
        while now - self._held[1][0] >= SURE_SECONDS:
            self._held.popleft()
        old = [number for number, since in self._missing.items() if since <= self._held[0][0] - 0.5]
        known = len(self._lost)
        for number in old[: max(0, len(old) - known - max(held for _, held in self._held)) + known]:
            self._lose(number)

    def settle(self) -> None:
        """The lane has settled: what is missing is lost."""
        for number in self._missing:
            self._lose(number)

    def _lose(self, number: int) -> None:
        if number not in self._lost:
            self._lost.add(number)
            self.changed.add(number)

    # Results

    @property
    def missing(self) -> bool:
        """Whether an accepted email is neither delivered, given up, nor known to be lost."""
        return len(self._missing) > len(self._lost)

    def in_flight_since(self, seconds: float) -> bool:
        """Whether the mail server has begun to take an email within these seconds, and has not answered yet."""
        return bool(self.flights) and time.perf_counter_ns() - self._newest_flight < seconds * 1e9

    def state(self, number: int, waiting: set[int]) -> str:
        """The letter of this email's state, as lab/browser/__init__.py lists them. `waiting`: callers that wait."""
        email = self.ledger.emails[number]
        outcome = self.ledger.outcome(email)
        if outcome.arrivals:
            return "u" if len(outcome.arrivals) > 1 else "d"
        if number in self.flights:
            return "g" if self.flights[number] > 1 else "i"
        if outcome.accepted:
            return "f" if outcome.failed else "l" if number in self._lost else "a"
        return "q" if number in waiting else "x" if email.status else "n"

    def numbers(self, waiting: set[int]) -> dict[str, int]:
        sums = self.ledger.numbers
        lost = len(self._lost)
        flying = sum(number in self._missing and number not in self._lost for number in self.flights)
        rest = sums["missing"] - lost - flying
        held = self._balance.queued if self._balance else 0
        in_queue = min(rest, max(0, held - flying))
        return {
            "asked": sums["attempted"],
            "refused": sums["attempted"] - sums["acknowledged"] - len(waiting),
            "accepted": sums["acknowledged"],
            "delivered": sums["ok"],
            "failed": sums["failed"],
            "in_flight": flying,
            "waiting": in_queue,
            "lost": lost,
            "unknown": rest - in_queue,
            "twice": sums["duplicated"],
            "recovered": sums["recovered"],
            "unexpected": sums["unexpected"],
            "late": self.late,
        }

    def times(self) -> dict[str, float | None]:
        """The median time to the answer and to the inbox, in ms, of the newest emails."""
        found = {"answer_ms": self._answer_ns, "inbox_ms": self._arrival_ns}
        return {name: round(percentile(list(times), 50) / 1e6, 1) if times else None for name, times in found.items()}

    def unfinished(self, waiting: set[int]) -> set[int]:
        """The emails that a new viewer must know: those on their way, and those that are lost."""
        return waiting | set(self._missing) | set(self.flights)

    def email(self, number: int) -> Email:
        return self.ledger.emails[number]
