"""The mailer that all six strategies share: a pool of open SMTP sessions, one attempt per call.

async with Mailer(settings) as mailer:
    await mailer.send(email)
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Self

from common.mail.emails import Address, Email, read_address
from common.mail.errors import InDoubt, LoginFailed, SendError, SessionLost, TimedOut, TooManySessions
from common.mail.logins import Logins, login_file
from common.mail.message import build_message
from common.mail.smtp_conversation import Limits
from common.mail.smtp_opening import tls_context
from common.mail.smtp_session import ChunkingFailed, SmtpSession
from common.settings import Settings

GOODBYE_SECONDS = 1.0  # for a server that does not answer the goodbye
IDLE_SECONDS = 30.0  # shorter than any server's limit: Postfix closes an idle session after 300 s, others after 60 s
GROW_SECONDS = 30.0  # after the server has refused a session: the time until the pool tries one more
BUSY_SECONDS = 5.0  # if an email was sent within this time, the server works

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Attempt:
    started: float  # time.monotonic(), seconds
    session: SmtpSession | None = None

    @property
    def in_doubt(self) -> bool:
        return self.session is not None and self.session.in_doubt


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
        self._limits = Limits.of(settings, patient=patient)
        self._send_seconds = None if patient else settings.smtp_send_seconds
        self._tls = tls_context(self._server)
        self._places = asyncio.Semaphore(settings.smtp_sessions)
        self._withheld = 0  # places of sessions that the server has refused
        self._opening = 0
        self._growing: asyncio.TimerHandle | None = None
        self._first = asyncio.Lock()  # held by the first session until it is open, and again after a refused login
        self._turn = asyncio.Lock()  # held during a login
        self._logged_in = settings.smtp.user is None
        self._logins = Logins(login_file(settings))
        self._chunking = True
        self._last_sent = -BUSY_SECONDS  # time.monotonic(), seconds
        self._idle: deque[SmtpSession] = deque()  # the most recently used on the right
        self._open_sessions: set[SmtpSession] = set()  # the idle ones, those in use and those that are closing
        self._idle_timer: asyncio.TimerHandle | None = None
        self._attempts: dict[_Attempt, None] = {}  # the open ones, oldest first

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for timer in (self._idle_timer, self._growing):
            if timer is not None:
                timer.cancel()
        while self._idle:
            self._idle.pop().quit()
        if self._open_sessions:  # closing a TLS connection takes a round trip
            await asyncio.wait([session.closed for session in self._open_sessions], timeout=GOODBYE_SECONDS)
        for session in self._open_sessions:
            session.abort()

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
        attempt = _Attempt(time.monotonic())
        self._attempts[attempt] = None
        try:
            await self._send_within_limit(email, attempt)
        except SendError as error:
            self.failed += 1
            self._note_login(error)
            raise
        finally:
            del self._attempts[attempt]
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
        if not self._places.locked():
            async with self._places:
                if session := self._take_idle():
                    with suppress(SessionLost):
                        return await self._check(session)
                return await self._check(await self._open())
        if time.monotonic() - self._last_sent < BUSY_SECONDS:
            return None
        session = await self._open()
        try:
            await session.check(self._sender)
        finally:
            session.quit()

    async def _check(self, session: SmtpSession) -> None:
        try:
            await session.check(self._sender)
        finally:
            self._keep(session)

    async def _send_within_limit(self, email: Email, attempt: _Attempt) -> None:
        recipient = read_address(email.to)
        message = build_message(email, self._sender, recipient)
        while not await self._send_in_a_place(recipient, message, attempt):
            pass

    async def _send_in_a_place(self, recipient: Address, message: bytes, attempt: _Attempt) -> bool:
        """Returns False if the place was given up because the server accepts fewer sessions: wait for another."""
        seconds = self._send_seconds
        try:
            async with asyncio.timeout(seconds):
                await self._places.acquire()
        except TimeoutError:
            raise TimedOut(f"no session with {self._server} was free within {seconds:g} s") from None
        keep_place = True
        try:
            async with asyncio.timeout(seconds):
                await self._hand_in(recipient, message, attempt)
        except TimeoutError:
            if attempt.in_doubt:
                raise InDoubt(f"no answer to the message within {seconds:g} s: it may arrive") from None
            raise TimedOut(f"{self._server} did not take it within {seconds:g} s") from None
        except TooManySessions as error:
            if not (self._opening or any(session.usable for session in self._open_sessions)):
                raise
            keep_place = False
            self._shrink(error)
        finally:
            if keep_place:
                self._places.release()
        return keep_place

    def _shrink(self, error: TooManySessions) -> None:
        if not self._withheld:
            log.warning("the mail server limits the number of sessions: %s", error)
        self._withheld += 1
        if self._growing is None:
            self._growing = asyncio.get_running_loop().call_later(GROW_SECONDS, self._grow)

    def _grow(self) -> None:
        """Add a place: the next send that finds no idle session tries to open one."""
        self._withheld -= 1
        self._places.release()
        again = self._withheld > 0
        self._growing = asyncio.get_running_loop().call_later(GROW_SECONDS, self._grow) if again else None

    async def _hand_in(self, recipient: Address, message: bytes, attempt: _Attempt) -> None:
        """Send on an idle session if there is one. If the server has ended that session, or there is none, open one."""
        if session := self._take_idle():
            with suppress(SessionLost):
                return await self._use(session, recipient, message, attempt)
        with suppress(ChunkingFailed):
            return await self._use(await self._open(), recipient, message, attempt)
        return await self._use(await self._open(), recipient, message, attempt)

    async def _use(self, session: SmtpSession, recipient: Address, message: bytes, attempt: _Attempt) -> None:
        attempt.session = session
        try:
            await session.send(self._sender, recipient, message)
        except ChunkingFailed as error:
            if self._chunking:
                log.warning("the mail server offers CHUNKING and refuses BDAT, so emails go out with DATA: %s", error)
            self._chunking = False
            raise
        finally:
            self._keep(session)

    async def _open(self) -> SmtpSession:
        """Raises LoginFailed without asking the server while `Logins` allows no further try."""
        if self._logged_in:
            return await self._open_now(again=True)
        async with self._first:
            self._logins.check()
            return await self._open_now(again=False)

    async def _open_now(self, *, again: bool) -> SmtpSession:
        self._opening += 1
        try:
            login = self._login(again=again)
            session = await SmtpSession.open(self._server, self._tls, self._limits, login, chunking=self._chunking)
        finally:
            self._opening -= 1
        self._open_sessions.add(session)
        session.closed.add_done_callback(lambda _: self._open_sessions.discard(session))
        return session

    @asynccontextmanager
    async def _login(self, *, again: bool) -> AsyncIterator[None]:
        """One login at a time: if the server refuses one, the others do not try, because it may lock the account.

        `again`: an earlier login had succeeded when this session began to open.
        """
        async with self._turn:
            if again and not self._logged_in:
                self._logins.check()
            try:
                yield
            except LoginFailed as error:
                self._logged_in = False
                self._logins.failed(error)
                raise
            self._logged_in = True
            self._logins.succeeded()

    def _take_idle(self) -> SmtpSession | None:
        self._quit_idle()
        while self._idle:
            session = self._idle.pop()
            if session.is_quiet():
                return session
            session.close()
        return None

    def _keep(self, session: SmtpSession) -> None:
        if not session.usable:
            return
        loop = asyncio.get_running_loop()
        session.idle_since = loop.time()
        self._idle.append(session)
        if self._idle_timer is None:
            self._idle_timer = loop.call_later(IDLE_SECONDS, self._idle_timer_fired)

    def _idle_timer_fired(self) -> None:
        self._idle_timer = None
        self._quit_idle()
        if self._idle:
            self._idle_timer = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._idle_timer_fired)

    def _quit_idle(self) -> None:
        """End idle sessions before the server does. This also closes the sessions that a burst has opened."""
        too_old = asyncio.get_running_loop().time() - IDLE_SECONDS
        while self._idle and self._idle[0].idle_since <= too_old:
            self._idle.popleft().quit()
