"""When a refused login may be tried again: a server counts failed logins and may lock the account."""

import random
import time
from collections.abc import Callable

from common.mail.errors import LoginFailed

QUICK_SECONDS = 4.0
QUICK_TRIES = 8
SLOW_SECONDS = 60.0


class Logins:
    """The logins of one mailer.

    The first tries after a refusal are QUICK_SECONDS apart: if the password works again within half a minute, emails
    go out a few seconds later. A login that fails for longer needs a person. After QUICK_TRIES it is tried once in
    SLOW_SECONDS, so that an account is not locked by one worker that keeps trying. After a 454, which servers also say
    after too many logins (RFC 4954), this begins at once. A restarted process tries at once.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0  # in a row
        self._error: LoginFailed | None = None
        self._next = 0.0  # by the clock, seconds

    def check(self) -> None:
        """Raise the server's last refusal until the next login may be tried."""
        if self._error is not None and self._clock() < self._next:
            raise LoginFailed(*self._error.args)

    def failed(self, error: LoginFailed) -> None:
        self._failures += 1
        self._error = error
        slow = error.put_off or self._failures > QUICK_TRIES
        pause = SLOW_SECONDS * random.uniform(1.0, 1.25) if slow else QUICK_SECONDS
        self._next = self._clock() + pause

    def succeeded(self) -> None:
        self._failures = 0
        self._error = None
