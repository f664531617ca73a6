"""Commands and replies on one open connection (RFC 5321, 4.2), several commands in one write (RFC 2920)."""

import asyncio
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Self

from common.mail.errors import InDoubt, LoginFailed, Refused, SendError, SessionLost, TimedOut, Unavailable
from common.settings import Settings

_REPLY_LINE = re.compile(rb"(\d{3})(?:([ -])([^\n]*?))?\r?\n")
_MAX_REPLY = 64 * 1024  # bytes; a server that sends more without completing a reply does not speak SMTP
_NOT_LOGGED_IN = {454, 530, 534, 535, 538}  # RFC 4954: our login is at fault, not this email


@dataclass(frozen=True)
class Limits:
    """How long each answer of the server may take, in seconds."""

    connect: float = 5.0
    greeting: float = 300.0
    """For the greeting, TLS, EHLO and the login together."""
    command: float = 300.0
    """For MAIL and RCPT."""
    data: float = 120.0
    ahead: float = 10.0
    """For an envelope that was sent ahead, after the answer to the message before it: see smtp_session.py."""
    answer: float = 600.0
    """For the answer to the message. A client that gives up earlier makes copies: the server may have taken it."""

    @classmethod
    def of(cls, settings: Settings, *, patient: bool) -> Self:
        """`patient`: as long as RFC 5321 says, because no caller waits."""
        return cls(
            connect=settings.smtp_connect_seconds,
            # Some servers delay their greeting on purpose: Postfix's postscreen by 6 s.
            greeting=settings.smtp_greeting_seconds if patient else settings.smtp_send_seconds,
            command=settings.smtp_command_seconds,
            data=settings.smtp_data_seconds,
            ahead=cls.ahead if patient else min(cls.ahead, settings.smtp_send_seconds / 2),
            answer=settings.smtp_answer_seconds,
        )


class Reply(NamedTuple):
    code: int
    text: str

    @property
    def ok(self) -> bool:
        return 200 <= self.code < 300

    @property
    def blames_login(self) -> bool:
        return self.code in _NOT_LOGGED_IN

    def __str__(self) -> str:
        return f"{self.code} {self.text}"

    def error(self) -> SendError:
        """What this reply means where a success was expected."""
        if self.blames_login:
            return LoginFailed(str(self))
        if self.code == 421:  # the server's last word on a session (RFC 5321, 3.8)
            return SessionLost(f"the mail server ended the session: {self}")
        return Refused(str(self)) if self.code >= 500 else Unavailable(str(self))


class Exchange:
    """Commands that were sent together, and the replies that have come so far."""

    def __init__(self, count: int, *, hands_in: bool = False) -> None:
        """`count`: the replies that are expected. `hands_in`: the commands end with a message."""
        self.count = count
        self.hands_in = hands_in
        self.replies: list[Reply] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.abandoned = False
        self._lost: SendError | None = None

    @property
    def in_doubt(self) -> bool:
        """Whether the server may have taken a message: not if it has refused an earlier command of the exchange."""
        return self.hands_in and self._refusal() is None

    def finish(self, lost: SendError | None = None) -> None:
        """`lost`: why no further replies will come."""
        self._lost = self._lost or lost
        if not self.done.done():
            self.done.set_result(None)

    def result(self) -> list[Reply]:
        """As many replies as are expected: the first refusal takes the place of those that will not come.

        Raises the reason if replies are missing and none is a refusal; InDoubt if the server may have the message.
        """
        missing = self.count - len(self.replies)
        if missing <= 0:
            return self.replies
        if refusal := self._refusal():
            return self.replies + [refusal] * missing
        assert self._lost is not None
        raise InDoubt(str(self._lost)) if self.hands_in else self._lost

    def _refusal(self) -> Reply | None:
        """The first refusal among the replies so far; None if the server has refused nothing."""
        return next((reply for reply in self.replies if reply.code >= 400), None)


class SmtpConversation(asyncio.Protocol):
    """Several exchanges may be open: replies come in the order of the commands.

    Once `usable` is false it stays so, and the connection is closed, at the latest after the open exchanges.
    """

    def __init__(self, transport: asyncio.Transport, limits: Limits) -> None:
        self.usable = True
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.limits = limits
        self._transport = transport
        self._buffer = bytearray()
        self._lines: list[str] = []  # of the reply that is not complete yet
        self._open: deque[Exchange] = deque()  # oldest first

    async def exchange(self, data: bytes, replies: int = 1, limit: float | None = None) -> list[Reply]:
        """Send this and wait for the replies, as `wait_for` does."""
        exchange = Exchange(replies)
        self.write(data, exchange)
        return await self.wait_for(exchange, limit)

    def write(self, data: bytes, *exchanges: Exchange) -> None:
        """Send the commands of these exchanges. Raises SessionLost."""
        if not self.usable:
            raise SessionLost("the mail server closed the session")
        self._open += exchanges
        self._transport.write(data)

    async def wait_for(self, exchange: Exchange, limit: float | None = None) -> list[Reply]:
        """Wait for the replies, by default as long as for MAIL.

        After a refusal the connection may end before the other replies: the refusal then counts for those too.
        Raises SessionLost or TimedOut; InDoubt where the server may have taken the message.
        """
        seconds = limit or self.limits.command
        try:
            async with asyncio.timeout(seconds):
                await exchange.done
        except TimeoutError:
            self.abort()
            exchange.finish(TimedOut(f"no answer from the mail server within {seconds:g} s"))
        except asyncio.CancelledError:  # replies that are still to come must not meet the next email
            self.abandon(exchange)
            raise
        return exchange.result()

    def abandon(self, exchange: Exchange) -> None:
        """Ignore the replies to this exchange. The connection ends when the exchanges before it are done."""
        self.usable = False
        if exchange in self._open and exchange is not self._open[0]:
            exchange.abandoned = True
        else:
            self.abort()

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

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = 0
        while self._open and (line := _REPLY_LINE.match(self._buffer, end)):
            end = line.end()
            self._lines.append(printable((line[3] or b"").decode(errors="replace")))
            if line[2] != b"-":  # else more lines of this reply follow (RFC 5321, 4.2.1)
                self._take(Reply(int(line[1]), join_lines(self._lines)))
                self._lines.clear()
        del self._buffer[:end]
        if not self._open:
            if self._buffer:  # most likely "421 shutting down": no reply is expected
                self.close()
        elif b"\n" in self._buffer or len(self._buffer) + sum(map(len, self._lines)) > _MAX_REPLY:
            self._lose("the mail server sent something that is not an SMTP reply")

    def _take(self, reply: Reply) -> None:
        exchange = self._open[0]
        exchange.replies.append(reply)
        if reply.code == 421:
            self._end(reply)
        elif len(exchange.replies) == exchange.count:
            self._open.popleft().finish()
            if self._open and self._open[0].abandoned:
                self.abort()

    def _end(self, reply: Reply) -> None:
        """With this 421 (RFC 5321, 3.8) the server ends the session. It is the reply to all open exchanges."""
        self._open.popleft().finish()
        while self._open:
            self._open[0].replies.append(reply)
            self._open.popleft().finish()
        self.close()

    def eof_received(self) -> None:
        self._lose()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(str(exc or ""))
        if not self.closed.done():
            self.closed.set_result(None)

    def _lose(self, cause: str = "") -> None:
        while self._open:
            reason = f"the connection to the mail server broke{f': {cause}' if cause else ''}"
            self._open.popleft().finish(SessionLost(reason))
        self.close()  # last: over TLS it may call connection_lost at once


def join_lines(lines: Iterable[str]) -> str:
    """The lines of a reply as one, without the repetition of an enhanced status code (RFC 2034: "5.1.1")."""
    first, *others = lines
    code = first.partition(" ")[0]
    again = f"{code} " if re.fullmatch(r"[245]\.\d{1,3}\.\d{1,3}", code) else None
    return " ".join([first, *(line.removeprefix(again) if again else line for line in others)])


def printable(text: str) -> str:
    """Without control characters, because the text of a reply goes to logs and terminals."""
    text = " ".join(text.splitlines())
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
