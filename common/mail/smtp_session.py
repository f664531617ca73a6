"""One open SMTP session: the commands of RFC 5321, several in one write where the server offers it (RFC 2920).

aiosmtplib opens the session: connection, TLS, EHLO, login and their errors. It speaks one command at a time, so after
the login this protocol takes the connection over. On a warm session an email then costs two round trips:

    C: MAIL FROM:<a@example.com>        S: 250, 250, 354
       RCPT TO:<b@example.com>
       DATA
    C: the message and a dot            S: 250
"""

import asyncio
import re
import socket
import ssl
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, Self, cast

import aiohappyeyeballs
import aiosmtplib

from common.mail.emails import Address
from common.mail.errors import (
    InDoubt,
    LoginFailed,
    Refused,
    SendError,
    SessionLost,
    TimedOut,
    TooManySessions,
    Unavailable,
    Unreachable,
)
from common.settings import SmtpServer

_REPLY_LINE = re.compile(rb"(\d{3})(?:([ -])([^\n]*?))?\r?\n")
_MAX_REPLY = 64 * 1024  # bytes; a server that sends more without completing a reply has lost its mind
_MAX_FRUITLESS = 3  # refused emails and checks in a row, then the session is left; see _fruitless
_NOT_LOGGED_IN = {454, 530, 534, 535, 538}  # RFC 4954: the fault of our login, not of this email
_LOGINS = ("plain", "login", "cram-md5")  # the first of these that is offered is used; the connection is encrypted


@dataclass(frozen=True)
class Limits:
    """How long each answer of the server may take, in seconds."""

    connect: float = 5.0
    greeting: float = 300.0
    """For the greeting, TLS, EHLO and the login together."""
    command: float = 300.0
    """For MAIL and RCPT."""
    data: float = 120.0
    answer: float = 600.0
    """For the answer to the message. A client that gives up earlier makes copies: the server may have taken it."""


class Reply(NamedTuple):
    code: int
    text: str

    def error(self) -> SendError:
        """What this reply means where a success was expected."""
        line = f"{self.code} {self.text}"
        if self.code in _NOT_LOGGED_IN:
            return LoginFailed(line)
        if self.code == 421:  # the server's last word on a session (RFC 5321, 3.8)
            return SessionLost(f"the mail server ended the session: {line}")
        return Refused(line) if self.code >= 500 else Unavailable(line)


class SessionSpent(SessionLost):
    """A 4xx to MAIL or DATA on a session that has taken emails: perhaps its limit of messages. A new one may do."""


class SmtpSession(asyncio.Protocol):
    """Use it for one email at a time. Once `usable` is false it stays so, and the connection is closed."""

    def __init__(self, transport: asyncio.Transport, extensions: set[str], limits: Limits) -> None:
        self.usable = True
        self.emails = 0
        """Taken by the server on this session."""
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.in_doubt = False
        """The message is handed in and not yet answered: whether it arrives, nobody here can know."""
        self.idle_since = 0.0  # loop time, seconds; kept by the pool
        # Refused emails and checks since the last email that was taken. Servers slow down a client that only errs:
        # Postfix waits a second per command from the 10th error on, and hangs up at the 20th or the 120th NOOP.
        self._fruitless = 0
        self._transport = transport
        self._pipelining = "pipelining" in extensions
        self._smtputf8 = "smtputf8" in extensions
        self._limits = limits
        self._buffer = bytearray()
        self._lines: list[str] = []  # of the reply that is not complete yet
        self._replies: list[Reply] = []
        self._expected = 0
        self._waiter: asyncio.Future[list[Reply]] | None = None

    @classmethod
    async def open(cls, server: SmtpServer, tls: ssl.SSLContext, limits: Limits) -> Self:
        """Connect, encrypt and log in. Raises Unreachable, TooManySessions, TimedOut or LoginFailed.

        STARTTLS is used where it is offered, and demanded where a password would cross a network without it.
        """
        demand_tls = server.password is not None and not server.on_loopback
        smtp = aiosmtplib.SMTP(
            hostname=server.host,
            use_tls=server.tls,
            start_tls=False if server.tls else demand_tls or None,
            tls_context=tls,
            local_hostname=_ehlo_name(),
            timeout=None,
        )
        try:
            sock = await _connect(server, limits.connect)
            async with asyncio.timeout(limits.greeting):
                await smtp.connect(sock=sock)
                if smtp.is_ehlo_or_helo_needed:
                    await _greet(smtp)
                if server.user is not None:
                    await _log_in(smtp, server.user, server.password or "")
        except TimeoutError:
            _abort(smtp)
            raise TimedOut(f"no session with {server} within {limits.greeting:g} s") from None
        except (aiosmtplib.SMTPException, OSError, UnicodeError) as error:  # UnicodeError: a host that IDNA refuses
            _abort(smtp)
            kind = TooManySessions if getattr(error, "code", None) == 421 else Unreachable
            raise kind(f"no session with {server}: {_words(error)}") from error
        except BaseException:
            _abort(smtp)
            raise
        session = cls(cast(asyncio.Transport, smtp.transport), set(smtp.esmtp_extensions), limits)
        session._transport.set_protocol(session)
        return session

    async def send(self, sender: Address, recipient: Address, message: bytes) -> None:
        """Hand in one message. Returns when the server said 250.

        Raises Refused, Unavailable, Unreachable, LoginFailed before the message was handed in, InDoubt after.
        """
        smtputf8 = sender.needs_smtputf8 or recipient.needs_smtputf8
        if smtputf8 and not self._smtputf8:
            raise Refused("the mail server does not offer SMTPUTF8, which an address with such letters needs")
        mail, rcpt, data = await self._envelope(
            f"MAIL FROM:<{sender.wire}>{' SMTPUTF8' if smtputf8 else ''}\r\n".encode(),
            f"RCPT TO:<{recipient.wire}>\r\n".encode(),
            b"DATA\r\n",
        )
        # The first reply that is no success decides; a 421 after a refusal ends the session, the refusal stands.
        failed = next((r for r in (mail, rcpt) if not 200 <= r.code < 300), None if data.code == 354 else data)
        if failed:
            await self._clear(data_started=data.code == 354)
            recipient_refused = mail.code < 300 <= rcpt.code
            if self.emails and not recipient_refused and 400 <= failed.code < 500 and failed.code not in _NOT_LOGGED_IN:
                self.quit()
                raise SessionSpent(f"{failed.code} {failed.text}")
            raise failed.error()
        self.in_doubt = True  # from this write on, only a reply tells whether the email has arrived
        [reply] = await self._exchange(_stuff_dots(message) + b".\r\n", limit=self._limits.answer)
        self.in_doubt = False
        if not 200 <= reply.code < 300:
            raise reply.error()
        self.emails += 1
        self._fruitless = 0

    async def check(self, sender: Address) -> None:
        """Ask whether the server would take an email from this sender: MAIL, then RSET. Raises SendError.

        NOOP is not enough: a server that demands a login answers 250 to it.
        """
        [reply] = await self._exchange(f"MAIL FROM:<{sender.wire}>\r\n".encode())
        await self._clear(data_started=False)
        if not 200 <= reply.code < 300:
            raise reply.error()

    def quit(self) -> None:
        """Say goodbye without waiting for the answer."""
        if self.usable:
            self._transport.write(b"QUIT\r\n")
        self.close()

    def close(self) -> None:
        self.usable = False
        self._transport.close()

    def abort(self) -> None:
        self.usable = False
        self._transport.abort()

    async def _envelope(self, *commands: bytes) -> list[Reply]:
        """Send MAIL, RCPT and DATA; the replies. Without PIPELINING it stops asking at the first failure."""
        if self._pipelining:
            replies = await self._exchange(b"".join(commands), len(commands))
        else:
            replies = []
            for command in commands:
                limit = self._limits.data if command == b"DATA\r\n" else None
                replies += await self._exchange(command, limit=limit)
                if replies[-1].code >= 400:
                    break
            replies += [replies[-1]] * (len(commands) - len(replies))
        return replies

    async def _clear(self, *, data_started: bool) -> None:
        """Leave the session ready for the next email after a refused envelope, or end it. Raises nothing."""
        self._count_fruitless()
        with suppress(SessionLost):
            if data_started:  # all recipients refused, yet DATA accepted: a lone dot ends it (RFC 2920, 3.1)
                await self._exchange(b".\r\n")
            await self._exchange(b"RSET\r\n")

    def _count_fruitless(self) -> None:
        self._fruitless += 1
        if self._fruitless >= _MAX_FRUITLESS:
            self.quit()

    async def _exchange(self, data: bytes, replies: int = 1, limit: float | None = None) -> list[Reply]:
        """Send this and wait for the replies, by default as long as for MAIL. Raises SessionLost, TimedOut, InDoubt."""
        if not self.usable:
            raise SessionLost("the mail server closed the session")
        seconds = limit or self._limits.command
        self._expected = replies
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        try:
            async with asyncio.timeout(seconds):
                return await self._waiter
        except TimeoutError:
            self.abort()
            reason = f"no answer from the mail server within {seconds:g} s"
            raise (InDoubt if self.in_doubt else TimedOut)(reason) from None
        except asyncio.CancelledError:  # replies that are still to come must not meet the next email
            self.abort()
            raise
        finally:
            self._waiter = None

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:  # nobody asked: "421 shutting down", most likely
            self.close()
            return
        self._buffer += data
        end = 0
        while line := _REPLY_LINE.match(self._buffer, end):
            end = line.end()
            self._lines.append(_printable((line[3] or b"").decode(errors="replace")))
            if line[2] != b"-":  # else more lines of this reply follow (RFC 5321, 4.2.1)
                self._replies.append(Reply(int(line[1]), _join(self._lines)))
                self._lines.clear()
        del self._buffer[:end]
        if b"\n" in self._buffer or len(self._buffer) + sum(map(len, self._lines)) > _MAX_REPLY:
            self._lose(ValueError("the mail server sent something that is no SMTP reply"))
        elif len(self._replies) >= self._expected or self._last_word():
            replies, self._replies = self._replies, []
            if not self._waiter.done():
                missing = self._expected - len(replies)
                self._waiter.set_result(replies[: self._expected] + [replies[-1]] * missing)
            if len(replies) > self._expected or any(reply.code == 421 for reply in replies):
                self.close()

    def _last_word(self) -> bool:
        """After a 421 no further reply of a pipelined group will come."""
        return bool(self._replies) and self._replies[-1].code == 421

    def eof_received(self) -> None:
        self._lose(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(exc)
        if not self.closed.done():
            self.closed.set_result(None)

    def _lose(self, cause: Exception | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            reason = f"the connection to the mail server broke{f': {cause}' if cause else ''}"
            self._waiter.set_exception(InDoubt(reason) if self.in_doubt else SessionLost(reason))
        self.close()  # last: over TLS it may call connection_lost at once


def _abort(smtp: aiosmtplib.SMTP) -> None:
    if smtp.transport is not None:
        smtp.transport.abort()  # type: ignore[attr-defined]
    smtp.close()


async def _greet(smtp: aiosmtplib.SMTP) -> None:
    try:
        await smtp.ehlo()
    except aiosmtplib.SMTPHeloError:  # a server from before 1995
        await smtp.helo()


async def _log_in(smtp: aiosmtplib.SMTP, user: str, password: str) -> None:
    """With one AUTH: a server counts the failed ones, and may lock the account."""
    method = next((name for name in _LOGINS if name in smtp.supported_auth_methods), None)
    if method is None:
        raise LoginFailed("the mail server offers no login that is known here (AUTH PLAIN, LOGIN or CRAM-MD5)")
    log_in = {"plain": smtp.auth_plain, "login": smtp.auth_login, "cram-md5": smtp.auth_crammd5}[method]
    try:
        await log_in(user, password)
    except (aiosmtplib.SMTPServerDisconnected, aiosmtplib.SMTPTimeoutError):
        raise
    except aiosmtplib.SMTPException as error:
        raise LoginFailed(f"the mail server does not accept the login: {_words(error)}") from None


async def _connect(server: SmtpServer, seconds: float) -> socket.socket:
    """A TCP connection whose dead peer is noticed, however long a read waits. Raises OSError or TimedOut."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds):
            places = await loop.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
            sock = await aiohappyeyeballs.start_connection(places, happy_eyeballs_delay=0.25)
    except TimeoutError:
        raise TimedOut(f"no connection to {server} within {seconds:g} s") from None
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):  # seconds; not on macOS
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return sock


def _join(lines: Iterable[str]) -> str:
    """The lines of a reply as one, without the repetition of an enhanced status code (RFC 2034: "5.1.1")."""
    first, *others = lines
    code = first.partition(" ")[0]
    again = f"{code} " if re.fullmatch(r"[245]\.\d{1,3}\.\d{1,3}", code) else None
    return " ".join([first, *(line.removeprefix(again) if again else line for line in others)])


def _words(error: Exception) -> str:
    """The server's reply, where there is one, or the system's reason."""
    code, message = getattr(error, "code", None), getattr(error, "message", None)
    return f"{code} {_join(map(_printable, message.splitlines()))}" if code and message else _printable(str(error))


def _ehlo_name() -> str:
    """The name for EHLO: ours if it is a full one, else an address literal (RFC 5321, 4.1.4). Asks no DNS."""
    name = socket.gethostname()
    return name if "." in name and name.isascii() else "[127.0.0.1]"


def _printable(text: str) -> str:
    """What a server says goes to logs and terminals."""
    text = " ".join(text.splitlines())
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def _stuff_dots(message: bytes) -> bytes:
    """RFC 5321, 4.5.2. A message begins with a header, never with a dot."""
    return message.replace(b"\r\n.", b"\r\n..")
