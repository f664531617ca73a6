"""The mailer that all six strategies share: a pool of open SMTP sessions, one attempt per call.

async with Mailer(settings) as mailer:
    await mailer.send(email)
"""

import asyncio
import logging
import time
from contextlib import suppress
from typing import Self

from common.mail.ahead import Ahead
from common.mail.attempt import Attempt
from common.mail.emails import Email, read_address
from common.mail.errors import InDoubt, LoginFailed, SendError, SessionLost, TimedOut, TooManySessions
from common.mail.message import build_message
from common.mail.places import Places
from common.mail.smtp_pool import SmtpPool
from common.mail.smtp_session import AheadFailed, ChunkingFailed, SmtpSession
from common.settings import Settings

BUSY_SECONDS = 5.0  # if an email was sent within this time, the server works

log = logging.getLogger(__name__)


class Mailer:
    """Sends emails through at most `settings.smtp_sessions` sessions; further sends wait for one, in order.

    `sent` and `failed` count attempts. A server that greets with 421 while other sessions are open has a limit of
    sessions: the pool shrinks to what it accepts, and tries one more every GROW_SECONDS.
    """

    def __init__(self, settings: Settings, *, patient: bool = False) -> None:
        """`patient` is for a worker. It waits for a free session as long as it takes, and for each answer as long as
        RFC 5321, 4.5.3.2, says. The caller of an impatient mailer waits: `smtp_send_seconds` limits the whole send.
        """
        self.sent = 0
        self.failed = 0
        self.login_failed: str | None = None
        """What the server said when it last refused our login; None after an email or a check that succeeded."""
        self._server = settings.smtp
        self._sender = settings.sender
        self._send_seconds = None if patient else settings.smtp_send_seconds
        self._pool = SmtpPool(settings, patient=patient)
        self._places = Places(settings.smtp_sessions)
        self._ahead = Ahead()
        self._last_sent = -BUSY_SECONDS  # time.monotonic(), seconds
        self._attempts: dict[Attempt, None] = {}  # the open ones, oldest first

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._places.close()
        await self._pool.close()

    @property
    def in_flight(self) -> int:
        """Sends that have begun and not ended, including those that wait for a free session."""
        return len(self._attempts)

    @property
    def oldest_seconds(self) -> float:
        """The age of the oldest send in flight, in seconds; 0.0 when there is none."""
        oldest = next(iter(self._attempts), None)
        return time.monotonic() - oldest.started if oldest else 0.0

    async def send(self, email: Email) -> None:
        """Try once. Returns when the server has said 250.

        Raises a SendError (see common/mail/errors.py) otherwise. An impatient mailer waits at most `smtp_send_seconds`
        for a free session, and then at most as long for the rest, connecting included.
        """
        recipient = read_address(email.to)
        message = build_message(email, self._sender, recipient)
        attempt = Attempt(self._sender, recipient, message, time.monotonic())
        self._attempts[attempt] = None
        try:
            while not await self._send_in_a_place(attempt):
                pass
        except SendError as error:
            self.failed += 1
            self._note_login(error)
            raise
        finally:
            del self._attempts[attempt]
            self._ahead.end(attempt)
        self.sent += 1
        self.login_failed = None
        self._last_sent = time.monotonic()
        log.info("sent %s to %s in %.1f ms", email.id, email.to, (time.monotonic() - attempt.started) * 1000)

    async def check(self) -> None:
        """Find out whether the mail server could take an email now. Raises a SendError if not.

        With all sessions in use, an email sent within BUSY_SECONDS is proof; otherwise an additional session asks. The
        check of an impatient mailer takes at most `smtp_send_seconds`.
        """
        try:
            async with asyncio.timeout(self._send_seconds):
                await self._check_now()
        except TimeoutError:
            raise TimedOut(f"{self._server} did not answer within {self._send_seconds:g} s") from None
        except SendError as error:
            self._note_login(error)
            raise
        self.login_failed = None

    def _note_login(self, error: SendError) -> None:
        if isinstance(error, LoginFailed):
            self.login_failed = str(error)

    async def _check_now(self) -> None:
        if self._places.take_free():
            try:
                return await self._check_in_a_place()
            finally:
                self._places.give_back()
        if time.monotonic() - self._last_sent < BUSY_SECONDS:
            return None
        session = await self._pool.open()
        try:
            await session.check(self._sender)
        finally:
            session.quit()

    async def _check_in_a_place(self) -> None:
        if session := self._pool.take_idle():
            with suppress(SessionLost):
                return await self._check(session)
        return await self._check(await self._pool.open())

    async def _check(self, session: SmtpSession) -> None:
        try:
            await session.check(self._sender)
        finally:
            self._pool.keep(session)

    async def _send_in_a_place(self, attempt: Attempt) -> bool:
        """Returns False if the place was given up because the server accepts fewer sessions: wait for another."""
        session = await self._wait_for_place(attempt)
        keep_place = True
        try:
            async with asyncio.timeout(self._send_seconds):
                await self._hand_in(attempt, session)
        except TimeoutError:
            within = f"within {self._send_seconds:g} s"
            if attempt.in_doubt:
                raise InDoubt(f"no answer to the message {within}: it may arrive") from None
            raise TimedOut(f"{self._server} did not take it {within}") from None
        except TooManySessions as error:
            if not self._pool.has_others:
                raise
            keep_place = False
            self._places.withhold(error)
        finally:
            if keep_place:
                self._places.pass_on(attempt)
        return keep_place

    async def _wait_for_place(self, attempt: Attempt) -> SmtpSession | None:
        """Returns the session in which the envelope was sent ahead, if it was."""
        try:
            async with asyncio.timeout(self._send_seconds):
                return await self._places.take(attempt)
        except TimeoutError:
            raise TimedOut(f"no session with {self._server} was free within {self._send_seconds:g} s") from None

    async def _hand_in(self, attempt: Attempt, session: SmtpSession | None) -> None:
        """Send in this session, or on an idle one if there is one. If the server has ended it, or there is none, open
        one.
        """
        suspicion: AheadFailed | None = None
        if session := session or self._pool.take_idle():
            try:
                return await self._use(session, attempt)
            except AheadFailed as error:
                suspicion = error
            except SessionLost:
                pass
            self._places.send_back(attempt)
            attempt.envelope = None
        try:
            await self._use(await self._pool.open(), attempt)
        except ChunkingFailed:
            await self._use(await self._pool.open(), attempt)
        if suspicion is not None:
            self._ahead.failed(attempt, suspicion)

    async def _use(self, session: SmtpSession, attempt: Attempt) -> None:
        try:
            await session.send(attempt, lambda: self._choose_next(attempt, session))
        except ChunkingFailed as error:
            if self._pool.chunking:
                log.warning("the mail server offers CHUNKING and refuses BDAT, so emails go out with DATA: %s", error)
            self._pool.chunking = False
            raise
        finally:
            if attempt.next is None:
                self._pool.keep(session)

    def _choose_next(self, attempt: Attempt, session: SmtpSession) -> Attempt | None:
        """The email whose envelope goes ahead with the message of this one: only if it would have to wait otherwise."""
        if attempt.envelope is not None:
            self._ahead.worked()
        follower = self._places.choose_next(attempt, session) if self._ahead.allowed else None
        if follower is not None:
            self._ahead.begin(attempt, follower)
        return follower
