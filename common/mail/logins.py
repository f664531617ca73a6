"""When a refused login may be tried again: a server counts failed logins and may lock the account."""

import hashlib
import json
import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from common.mail.errors import LoginFailed
from common.settings import Settings

PAUSES_SECONDS = (4.0, 10.0, 900.0, 3600.0)  # after the first refusal, the second, the third, and each later one
PUT_OFF_SECONDS = 60.0  # at least, after a 454
JITTER = 1.25


@dataclass(frozen=True)
class _Refusals:
    """The refusals in a row, of all processes together."""

    count: int
    until: float
    """When the next login may be tried (unix seconds)."""
    reason: str


class Logins:
    """The logins of one mailer.

    Many servers lock an account after five failed logins, and forget a failure after a quarter of an hour or more. So a
    login is tried three times in the first seconds, then after a quarter of an hour, then once an hour. If the password
    works again within seconds, emails go out a few seconds later; a login that fails for longer needs a person. After a
    454, which servers also say after too many logins (RFC 4954), the pause is at least a minute. A restarted process
    tries at once.

    All processes of this machine that use the same login count together, in a file; its name contains a digest of the
    login, so a new password starts again from zero. Processes on other machines count for themselves.
    """

    def __init__(self, file: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        """Without a file, or if it cannot be written, this process counts for itself."""
        self._file = file
        self._clock = clock
        self._refusals: _Refusals | None = None
        self._tried = False
        self._is_shared = False  # the file has been written

    def check(self) -> None:
        """Raise the server's last refusal until the next login may be tried."""
        refusals = self._read()
        if self._tried and refusals is not None and self._clock() < refusals.until <= self._clock() + _longest():
            raise LoginFailed(refusals.reason)
        self._tried = True

    def failed(self, error: LoginFailed) -> None:
        before = self._read()
        is_recent = before is not None and self._clock() - before.until < _longest()
        count = before.count + 1 if before and is_recent else 1
        pause = PAUSES_SECONDS[min(count, len(PAUSES_SECONDS)) - 1]
        pause = max(pause, PUT_OFF_SECONDS) if error.put_off else pause
        self._refusals = _Refusals(count, self._clock() + pause * random.uniform(1.0, JITTER), str(error))
        self._write(self._refusals)

    def succeeded(self) -> None:
        self._refusals = None
        if self._file is not None:
            with suppress(OSError):
                self._file.unlink(missing_ok=True)

    def _read(self) -> _Refusals | None:
        if self._file is None:
            return self._refusals
        try:
            self._refusals = _Refusals(**json.loads(self._file.read_text()))
        except FileNotFoundError:
            if self._is_shared:  # another process has logged in, and has deleted the file
                self._refusals = None
        except (OSError, ValueError, TypeError):
            pass  # this process goes on with what it knows
        return self._refusals

    def _write(self, refusals: _Refusals) -> None:
        if self._file is None:
            return
        with suppress(OSError):
            self._file.parent.mkdir(mode=0o700, exist_ok=True)
            new = self._file.with_suffix(f".{os.getpid()}")  # renamed below, so a reader never sees half a file
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(asdict(refusals), file)
            new.replace(self._file)
            self._is_shared = True


def _longest() -> float:
    """A moment further ahead than this comes from a wrong clock; refusals that ended longer ago no longer count."""
    return PAUSES_SECONDS[-1] * JITTER


def login_file(settings: Settings) -> Path | None:
    """Where the processes with this login count its refusals; None without a login."""
    server = settings.smtp
    if server.user is None:
        return None
    login = "\0".join((server.host, str(server.port), server.user, server.password or ""))
    return settings.data_dir / f"login-{hashlib.sha256(login.encode()).hexdigest()[:16]}.json"
