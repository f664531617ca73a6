"""When a run has settled: no email is queued, and no more arrive."""

import time
from dataclasses import dataclass, field

from lab.harness.counters import Balance

QUIET_SECONDS = 0.6  # when all emails have arrived: how long to wait for further copies
SILENT_SECONDS = 3.0  # when emails are missing but not queued: how long to wait for them


@dataclass
class Settling:
    """Watches one strategy. The figures of one reading are not of one moment, so two readings must agree."""

    _seen: int = -1
    _since: float = field(default_factory=time.monotonic)
    _last: Balance | None = None

    def notice(self, arrivals: int) -> None:
        """Call this often with the number of emails that have arrived so far."""
        if arrivals != self._seen:
            self._seen, self._since = arrivals, time.monotonic()

    def settled(self, balance: Balance, *, missing: bool) -> bool:
        """Whether the run has settled, by a new reading. `missing`: an accepted email has not arrived."""
        agrees, self._last = balance == self._last, balance
        quiet = time.monotonic() - self._since
        return agrees and not balance.queued and quiet > (SILENT_SECONDS if missing else QUIET_SECONDS)
