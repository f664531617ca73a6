"""Sending for a worker, whose callers do not wait: throttled, and waiting for a mail server that is down."""

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Protocol

from aiolimiter import AsyncLimiter

from asynckit.backoff import backoff_seconds
from asynckit.tasks import background, end_tasks
from common.mail.emails import Email
from common.mail.errors import LoginFailed, SendError, Unavailable, Unreachable
from common.mail.mailer import Mailer
from common.mail.retry import concerns_every_email

PROBE_CAP_SECONDS = 2.0  # the longest pause between two checks whether the server is back
WINDOW = 50  # emails in flight in a worker: more than it has SMTP sessions. A kill may send each of them twice
BREAKS = 3  # how often in a row the server may break off at one email, although its checks succeed, before it fails

log = logging.getLogger(__name__)


def window(emails_per_second: float | None) -> int:
    """How many emails a worker should have in flight; with a throttle, at most those of one second."""
    return WINDOW if emails_per_second is None else max(1, min(WINDOW, math.ceil(emails_per_second)))


class Throttle(Protocol):
    async def acquire(self) -> None:
        """Wait until one more email may be sent."""


class PatientSender:
    """`paused` is the reason why nothing is sent at the moment, or None. `on_pause` is called when it changes, with the
    error, or with None when emails are sent again.
    """

    def __init__(
        self,
        mailer: Mailer,
        emails_per_second: float | None,
        on_pause: Callable[[SendError | None], None] = lambda _: None,
        throttle: Throttle | None = None,
    ) -> None:
        """`throttle`: in place of a limit of `emails_per_second` for this process."""
        self.paused: str | None = None
        self._on_pause = on_pause
        self._mailer = mailer
        # One email every 1/rate seconds: a limiter of `rate` emails a second would send all of them at once.
        self._throttle = throttle
        if throttle is None and emails_per_second:
            self._throttle = AsyncLimiter(1, 1 / emails_per_second)
        self._ready = asyncio.Event()
        self._ready.set()
        self._failures = 0  # consecutive failures of the server
        self._probe: asyncio.Task[None] | None = None

    async def send(self, email: Email, *, patient: bool = True) -> None:
        """Send the email as soon as the throttle and the server allow.

        Raises errors that concern only this email: Refused, Unavailable (a 4xx) or InDoubt. While the server is down or
        refuses the login, the email waits here and uses up no attempt. Raises Unreachable or Unavailable if the server
        broke off at this email BREAKS times although its checks succeeded. With `patient=False` it raises at once.
        """
        breaks = 0  # in a row, although the check after each of them succeeded
        while True:
            if self.paused and not patient:
                raise Unreachable(self.paused)
            await self._ready.wait()
            if self._throttle is not None:
                await self._throttle.acquire()
                if not self._ready.is_set():
                    continue
            try:
                await self._mailer.send(email)
            except SendError as error:
                if not concerns_every_email(error):
                    self._failures = 0
                    raise
                self._pause(error)
                breaks += 1
                if not patient:
                    raise
                if breaks == BREAKS:  # the server fails only with this email, so this email is at fault
                    if isinstance(error, LoginFailed):
                        raise Unavailable(str(error)) from error
                    raise
            else:
                self._failures = 0
                return

    def _pause(self, error: SendError) -> None:
        """Stop all sending until a check of the server succeeds. Logs one line, however many sends have failed."""
        if self._probe is not None:
            return
        self._set_paused(error)
        log.warning("pause: %s", self.paused)
        self._ready.clear()
        self._probe = background(self._wait_for_server(), "waiting for the mail server")

    async def _wait_for_server(self) -> None:
        """The pauses are short after a failed login too: the mailer itself limits how often a login is tried."""
        while True:
            self._failures += 1
            await asyncio.sleep(backoff_seconds(self._failures, base=0.1, cap=PROBE_CAP_SECONDS))
            try:
                await self._mailer.check()
            except SendError as error:
                self._set_paused(error)
            except Exception:  # a bug here must not leave the worker paused forever
                log.exception("error while checking the mail server")
            else:
                break
        log.info("the mail server is reachable again")
        self._set_paused(None)
        self._probe = None
        self._ready.set()

    def _set_paused(self, error: SendError | None) -> None:
        self.paused = None if error is None else f"{type(error).__name__}: {error}"
        self._on_pause(error)

    async def close(self) -> None:
        if self._probe is not None:
            await end_tasks([self._probe])
