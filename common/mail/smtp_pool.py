"""The pool of SMTP sessions: opening one, with one login at a time, and keeping the idle ones for a while."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from common.mail.errors import LoginFailed
from common.mail.logins import Logins, login_file
from common.mail.smtp_conversation import Limits
from common.mail.smtp_opening import tls_context
from common.mail.smtp_session import SmtpSession
from common.settings import Settings

GOODBYE_SECONDS = 1.0  # how long to wait for a server that does not answer QUIT
IDLE_SECONDS = 30.0  # shorter than any server's limit: Postfix closes an idle session after 300 s, others after 60 s


class SmtpPool:
    def __init__(self, settings: Settings, *, patient: bool) -> None:
        self.chunking = True
        """Whether new sessions use CHUNKING where the server offers it."""
        self._server = settings.smtp
        self._limits = Limits.of(settings, patient=patient)
        self._tls = tls_context(self._server)
        self._opening = 0
        self._first = asyncio.Lock()  # held by the first session until it is open, and again after a refused login
        self._turn = asyncio.Lock()  # held during a login
        self._logged_in = settings.smtp.user is None
        self._logins = Logins(login_file(settings))
        self._idle: deque[SmtpSession] = deque()  # the most recently used on the right
        self._open_sessions: set[SmtpSession] = set()  # the idle ones, those in use and those that are closing
        self._idle_timer: asyncio.TimerHandle | None = None

    async def close(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        while self._idle:
            self._idle.pop().quit()
        if self._open_sessions:  # closing a TLS connection takes a round trip
            await asyncio.wait([session.closed for session in self._open_sessions], timeout=GOODBYE_SECONDS)
        for session in self._open_sessions:
            session.abort()

    @property
    def has_others(self) -> bool:
        """Whether a session is usable or is being opened."""
        return self._opening > 0 or any(session.usable for session in self._open_sessions)

    async def open(self) -> SmtpSession:
        """Open a session. Raises LoginFailed without asking the server while `Logins` does not allow another try."""
        if self._logged_in:
            return await self._open_now(again=True)
        async with self._first:
            self._logins.check()
            return await self._open_now(again=False)

    async def _open_now(self, *, again: bool) -> SmtpSession:
        self._opening += 1
        try:
            login = self._login(again=again)
            session = await SmtpSession.open(self._server, self._tls, self._limits, login, chunking=self.chunking)
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

    def take_idle(self) -> SmtpSession | None:
        self._quit_idle()
        while self._idle:
            session = self._idle.pop()
            if session.is_quiet():
                return session
            session.close()
        return None

    def keep(self, session: SmtpSession) -> None:
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
