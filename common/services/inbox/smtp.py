"""The SMTP side of the inbox: aiosmtpd on our own event loop. No TLS, no login, any recipient.

aiosmtpd reads commands one by one from a stream, so it answers pipelined commands in order, but it does not announce
that. We add PIPELINING (RFC 2920) to the reply to EHLO.
"""

import asyncio
import logging
from functools import lru_cache
from typing import cast

from aiosmtpd.smtp import SMTP, Envelope, Session

from common.http.connections import Connections
from common.services.inbox.faults import Dial, Fate
from common.services.inbox.store import Store

MAX_MESSAGE = 10 << 20  # bytes, announced as SIZE
IDLE_SECONDS = 300.0  # how long a session may take until its next command (RFC 5321, 4.5.3.2.7)
HANG_SECONDS = 24 * 3600.0  # a session that hangs on request ends only when the client closes it

REFUSALS = {
    421: "421 4.3.2 the inbox is set to refuse: try again later, closing the connection",
    451: "451 4.3.2 the inbox is set to refuse: try again later",
    550: "550 5.7.1 the inbox is set to refuse: never accepted",
}

GREYLISTED = "450 4.7.1 the inbox is set to refuse: greylisted, try again later"
TOO_MANY = b"421 4.3.2 too many connections, closing this one\r\n"
SESSION_LIMIT = "452 4.4.5 the inbox is set to refuse: too many messages in this session"

# aiosmtpd logs every command, which takes a tenth of its time even if no handler shows the lines.
logging.getLogger("mail.log").setLevel(logging.ERROR)


class SmtpServer:
    """The listening socket and its sessions."""

    def __init__(self, handler: "Handler") -> None:
        self.port = 0
        self._handler = handler
        self._sessions: set[SmtpSession] = set()
        self._connections = Connections()
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> None:
        """Open the port (0: any free one) and set `self.port`. Raises OSError."""
        self._server = await asyncio.get_running_loop().create_server(
            self._session, host, port, backlog=self._connections.backlog
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Accept no more connections, and close the open ones at once."""
        if self._server is not None:
            self._server.close()
        for session in list(self._sessions):
            session.cut()

    def _session(self) -> "SmtpSession":
        return SmtpSession(self._handler, self._sessions, self._connections)


class SmtpSession(SMTP):
    """One connection."""

    def __init__(self, handler: "Handler", sessions: "set[SmtpSession]", connections: Connections) -> None:
        super().__init__(
            handler,
            hostname="localhost",  # the default would query DNS
            ident="inbox",
            enable_SMTPUTF8=True,
            data_size_limit=MAX_MESSAGE,
            timeout=IDLE_SECONDS,
            loop=asyncio.get_running_loop(),
        )
        self._sessions = sessions
        self._connections = connections
        self.in_transaction = False
        """Between MAIL and the answer to the message."""
        self.messages = 0
        """Emails whose final dot has arrived."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not self._connections.admit(self):
            cast(asyncio.Transport, transport).write(TOO_MANY)
            transport.close()
            return
        self._sessions.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self in self._sessions:
            self._sessions.discard(self)
            self._connections.remove(self)
            super().connection_lost(error)

    def is_idle(self) -> bool:
        return not self.in_transaction

    def force_close(self) -> None:
        self.cut()

    def keep_open(self) -> None:
        """Do not count the time of this command: it takes as long as the dial says."""
        self._reset_timeout(HANG_SECONDS)

    def end_transaction(self) -> None:
        self.in_transaction = False
        self._reset_timeout()

    def _getaddr(self, arg: str) -> tuple[str | None, str | None]:
        return _read_address(arg)

    def end(self) -> None:
        """Close the connection after everything has been written."""
        if self.transport is not None:
            self.transport.close()

    def cut(self) -> None:
        """Close the connection at once."""
        if self.transport is not None:
            cast(asyncio.Transport, self.transport).abort()  # uvloop's transports do not inherit from asyncio's


@lru_cache(maxsize=4096)
def _read_address(argument: str) -> tuple[str | None, str | None]:
    """aiosmtpd's parser for the argument of `MAIL FROM:`, cached because it takes more than half of an email's time.

    The method uses only a constant of the class, so we can pass the class in place of an object.
    """
    return SMTP._getaddr(cast(SMTP, SMTP), argument)


class Handler:
    """The hooks that aiosmtpd calls, shared by all sessions."""

    def __init__(self, store: Store, dial: Dial) -> None:
        self._store = store
        self._dial = dial

    async def handle_EHLO(  # noqa: N802  the hooks' names are aiosmtpd's
        self, server: SmtpSession, session: Session, envelope: Envelope, hostname: str, replies: list[str]
    ) -> list[str]:
        session.host_name = hostname
        return [*replies[:-1], "250-PIPELINING", replies[-1]]

    async def handle_MAIL(  # noqa: N802
        self, server: SmtpSession, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        limit = self._dial.faults.messages_per_session
        if limit and server.messages >= limit:
            return SESSION_LIMIT
        server.in_transaction = True
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(  # noqa: N802
        self, server: SmtpSession, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self._dial.greylisted(envelope.mail_from or "", address):
            return GREYLISTED
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    async def handle_DATA(  # noqa: N802
        self, server: SmtpSession, session: Session, envelope: Envelope
    ) -> str:
        """Called when the final dot has arrived. Returns the reply."""
        faults, fate = self._dial.faults, self.fate_of(envelope)
        server.messages += 1
        server.keep_open()
        if fate is Fate.HANG:
            await _wait_for_disconnect()
        if fate is not Fate.REFUSE:
            assert isinstance(envelope.original_content, bytes)
            self._store.add(envelope.mail_from or "", envelope.rcpt_tos, envelope.original_content)
        if faults.latency_ms:
            await asyncio.sleep(faults.latency_ms / 1000)
        if fate is Fate.LOSE_REPLY:
            server.cut()
            await _wait_for_disconnect()
        if fate is Fate.REFUSE and faults.refuse_code == 421:
            await server.push(REFUSALS[421])
            server.end()
            await _wait_for_disconnect()
        server.end_transaction()
        return REFUSALS[faults.refuse_code] if fate is Fate.REFUSE else "250 2.0.0 kept"

    def fate_of(self, envelope: Envelope) -> Fate:
        return self._dial.fate()


async def _wait_for_disconnect() -> None:
    """Wait forever: aiosmtpd cancels the session's task when the connection ends."""
    await asyncio.get_running_loop().create_future()
