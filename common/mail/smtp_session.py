"""One open SMTP session, as it sends emails: as few round trips as the server's extensions allow.

With PIPELINING (RFC 2920) and CHUNKING (RFC 3030) an email on a warm session takes one round trip:

    C: MAIL FROM:<a@example.com>        S: 250, 250, 250
       RCPT TO:<b@example.com>
       BDAT 123 LAST
       the message, 123 bytes

With PIPELINING alone it takes two, and without either, four:

    C: MAIL, RCPT, DATA                 S: 250, 250, 354
    C: the message and a dot            S: 250

If another email waits, its envelope is sent ahead, in one write with the current message. Then each email takes one:

    C: the message and a dot            S: 250, 250, 250, 354
       MAIL, RCPT, DATA of the next
"""

import asyncio
import select
import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Self

from common.mail.attempt import Attempt
from common.mail.emails import Address
from common.mail.errors import Refused, SessionLost, TimedOut
from common.mail.smtp_conversation import Exchange, Limits, Reply, SmtpConversation
from common.mail.smtp_opening import open_connection
from common.smtp_url import SmtpServer

_MAX_FRUITLESS = 3  # refused emails and checks in a row before the session is closed; see _fruitless
_CHUNKING_FAILS = {500, 501, 502, 503, 504}  # RFC 5321, 4.2.1: the fault of the command, not of this email
_OUT_OF_STEP = {500, 502, 503}  # what a server says to RCPT if it has not understood the MAIL before it
_GO_ON = 354
_QUICK_SECONDS = 1.0  # envelopes are sent ahead only if the last answer to a message came faster than this


class SessionSpent(SessionLost):
    """A 4xx to MAIL, DATA or BDAT on a session that has taken emails: it may have reached its limit of messages. Try a
    new one.
    """


class ChunkingFailed(SessionLost):
    """The server offers CHUNKING and does not know BDAT. It has not taken the email: a new session can, with DATA."""


class AheadFailed(SessionLost):
    """The server did not answer as it should when an envelope was sent ahead. It has not taken this email. A new
    session shows whether the cause is the email, or that its envelope was sent ahead.
    """


class SmtpSession(SmtpConversation):
    """Use it for one email at a time, and the envelope of the next one."""

    def __init__(
        self, transport: asyncio.Transport, extensions: set[str], limits: Limits, *, chunking: bool = True
    ) -> None:
        super().__init__(transport, limits)
        self.emails = 0
        """Emails that the server has taken in this session."""
        self.idle_since = 0.0  # loop time, seconds; kept by the pool
        # Refused emails and checks since the last email that was taken. Servers slow down a client that makes errors:
        # Postfix waits a second per command from the 10th error on, and hangs up at the 20th or the 120th NOOP.
        self._fruitless = 0
        self._pipelining = "pipelining" in extensions
        self._chunking = chunking and self._pipelining and "chunking" in extensions
        self._quick = False  # the last answer to a message took less than _QUICK_SECONDS
        self._smtputf8 = "smtputf8" in extensions

    @classmethod
    async def open(
        cls,
        server: SmtpServer,
        tls: ssl.SSLContext,
        limits: Limits,
        login: AbstractAsyncContextManager[None],
        *,
        chunking: bool = True,
    ) -> Self:
        """Connect, encrypt and log in. Raises Unreachable, TooManySessions, TimedOut or LoginFailed.

        `login` is entered for the login only. `chunking`: use CHUNKING where the server offers it.
        """
        transport, extensions = await open_connection(server, tls, limits, login)
        session = cls(transport, extensions, limits, chunking=chunking)
        transport.set_protocol(session)
        return session

    def is_quiet(self) -> bool:
        """Whether the connection is open and the server has written nothing that the event loop has not read yet.

        Ask before you use a session that was idle: if it ends after the message was written, the email is in doubt.
        """
        if not self.usable or self._transport.is_closing():
            return False
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def can_take(self, attempt: Attempt) -> bool:
        return self._smtputf8 or not attempt.needs_smtputf8

    async def send(self, attempt: Attempt, choose_next: Callable[[], Attempt | None] = lambda: None) -> None:
        """Hand in one message. Returns when the server said 250.

        `choose_next` is called when the message can be sent: the email whose envelope goes ahead with it, or None.
        Raises Refused, Unavailable, Unreachable, LoginFailed if the server has not taken it, InDoubt if it may have.
        """
        if not self.can_take(attempt):
            raise Refused("the mail server does not offer SMTPUTF8, which an address with non-ASCII letters needs")
        if not self._chunking:
            await self._check_envelope(await self._envelope(attempt), ahead=attempt.envelope is not None)
            await self._finish(attempt, _stuff_dots(attempt.message) + b".\r\n", choose_next)
        elif self.emails:
            data = attempt.mail + attempt.rcpt + _last_chunk(attempt.message)
            await self._check_envelope(await self._hand_in(attempt, data, Exchange(3, hands_in=True)))
        else:
            # A server that does not know BDAT takes the chunk for commands. The first email of a session shows whether
            # it does: no header of ours is a command, but lines of a text may be.
            head, blank, text = attempt.message.partition(b"\r\n\r\n")
            head += blank
            chunk = b"BDAT %d\r\n" % len(head) + head
            await self._check_envelope(await self.exchange(attempt.mail + attempt.rcpt + chunk, 3))
            await self._finish(attempt, _last_chunk(text))
        self.emails += 1
        self._fruitless = 0

    async def check(self, sender: Address) -> None:
        """Ask whether the server would take an email from this sender: MAIL, then RSET. Raises SendError.

        NOOP is not enough: a server that demands a login answers 250 to it.
        """
        [reply] = await self.exchange(f"MAIL FROM:<{sender.wire}>\r\n".encode())
        await self._clear()
        if not reply.ok:
            raise reply.error()

    async def _envelope(self, attempt: Attempt) -> list[Reply]:
        """The replies to MAIL, RCPT and DATA, which may have been sent ahead."""
        if attempt.envelope is None:
            return await self._exchange_each(attempt.mail, attempt.rcpt, b"DATA\r\n")
        try:
            return await self.wait_for(attempt.envelope, self.limits.ahead)
        except (SessionLost, TimedOut) as error:
            raise AheadFailed(str(error)) from None

    async def _exchange_each(self, *commands: bytes) -> list[Reply]:
        """Send MAIL, RCPT and DATA; the replies. Without PIPELINING it stops asking at the first failure."""
        if self._pipelining:
            return await self.exchange(b"".join(commands), len(commands))
        replies: list[Reply] = []
        for command in commands:
            limit = self.limits.data if command == b"DATA\r\n" else None
            replies += await self.exchange(command, limit=limit)
            if replies[-1].code >= 400:
                break
        return replies + [replies[-1]] * (len(commands) - len(replies))

    async def _check_envelope(self, replies: list[Reply], *, ahead: bool = False) -> None:
        """Raise what the replies to MAIL, RCPT and DATA or BDAT mean, unless each is a success.

        The first reply that is not a success decides. A 421 after a refusal ends the session, and the refusal still
        counts.
        """
        mail, rcpt, last = replies
        data_started = last.code == _GO_ON and not self._chunking
        if mail.ok and rcpt.ok and (data_started or (self._chunking and last.ok)):
            return
        if mail.ok and rcpt.ok:
            self._check_chunking(last)
        failed = next((reply for reply in (mail, rcpt) if not reply.ok), last)
        recipient_refused = mail.ok and not rcpt.ok
        if ahead and _is_suspicious(failed, recipient_refused=recipient_refused):
            self.close()
            raise AheadFailed(str(failed))
        await self._clear(data_started=data_started)
        if self.emails and not recipient_refused and 400 <= failed.code < 500 and not failed.blames_login:
            self.quit()
            raise SessionSpent(str(failed))
        raise failed.error()

    def _check_chunking(self, reply: Reply) -> None:
        """Raise ChunkingFailed if this reply to BDAT says that the server does not know the command."""
        if self._chunking and reply.code in _CHUNKING_FAILS:
            self.close()  # it may read the chunk as commands, and answer each
            raise ChunkingFailed(str(reply))

    async def _finish(
        self, attempt: Attempt, data: bytes, choose_next: Callable[[], Attempt | None] = lambda: None
    ) -> None:
        """Send the end of the message."""
        attempt.next = choose_next() if self._quick and self.usable else None
        started = asyncio.get_running_loop().time()
        [reply] = await self._hand_in(attempt, data, Exchange(1, hands_in=True))
        self._quick = self._pipelining and asyncio.get_running_loop().time() - started < _QUICK_SECONDS
        if reply.ok:
            return
        self._check_chunking(reply)
        if self._chunking:  # RFC 3030, 2: the state after a refused chunk is not defined
            await self._clear()
        if attempt.next and attempt.on_trial and reply.code >= 500:
            self.close()
            raise AheadFailed(str(reply))
        raise reply.error()

    async def _hand_in(self, attempt: Attempt, data: bytes, exchange: Exchange) -> list[Reply]:
        """Send what ends with the message, and with it the envelope of the next email, if there is one."""
        exchanges = [exchange]
        if attempt.next and attempt.next.envelope:
            exchanges.append(attempt.next.envelope)
            data += attempt.next.mail + attempt.next.rcpt + b"DATA\r\n"  # RFC 2920, 3.1: DATA ends a group
        self.write(data, *exchanges)
        attempt.handed_in = exchange
        replies = await self.wait_for(exchange, self.limits.answer)
        attempt.handed_in = None  # not earlier: a cancelled wait may lose a reply that has come
        return replies

    async def _clear(self, *, data_started: bool = False) -> None:
        """Leave the session ready for the next email after a refusal, or end it. Raises nothing."""
        self._count_fruitless()
        with suppress(SessionLost, TimedOut):
            if data_started:  # all recipients refused, yet DATA accepted: a lone dot ends it (RFC 2920, 3.1)
                await self.exchange(b".\r\n")
            [reply] = await self.exchange(b"RSET\r\n")
            if not reply.ok:
                self.quit()

    def _count_fruitless(self) -> None:
        self._fruitless += 1
        if self._fruitless >= _MAX_FRUITLESS:
            self.quit()


def _is_suspicious(reply: Reply, *, recipient_refused: bool) -> bool:
    """Whether this refusal of an envelope that was sent ahead may mean that the server cannot read it there."""
    return reply.code < 400 or (reply.code in _OUT_OF_STEP if recipient_refused else reply.code >= 500)


def _last_chunk(data: bytes) -> bytes:
    return b"BDAT %d LAST\r\n" % len(data) + data


def _stuff_dots(message: bytes) -> bytes:
    """RFC 5321, 4.5.2. A message begins with a header, never with a dot."""
    return message.replace(b"\r\n.", b"\r\n..")
