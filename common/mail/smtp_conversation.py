"""Commands and replies on one open connection (RFC 5321, 4.2), several commands in one write (RFC 2920)."""

import asyncio
import re
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


class SmtpConversation(asyncio.Protocol):
    """Use it for one exchange at a time. Once `usable` is false it stays so, and the connection is closed."""

    def __init__(self, transport: asyncio.Transport, limits: Limits) -> None:
        self.usable = True
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.limits = limits
        self._transport = transport
        self._buffer = bytearray()
        self._lines: list[str] = []  # of the reply that is not complete yet
        self._replies: list[Reply] = []
        self._expected = 0
        self._hands_in = False
        self._waiter: asyncio.Future[list[Reply]] | None = None

    @property
    def in_doubt(self) -> bool:
        """Whether a message is handed in and not answered: the server may have taken it.

        If the server has refused an earlier command of the same write, it has not.
        """
        return self._hands_in and self._refusal() is None

    async def exchange(
        self, data: bytes, replies: int = 1, limit: float | None = None, *, hands_in: bool = False
    ) -> list[Reply]:
        """Send this and wait for the replies, by default as long as for MAIL. `hands_in`: it ends with a message.

        After a refusal the connection may end before the other replies: the refusal then counts for those too.
        Raises SessionLost or TimedOut; InDoubt where the server may have taken the message.
        """
        if not self.usable:
            raise SessionLost("the mail server closed the session")
        seconds = limit or self.limits.command
        self._expected = replies
        self._waiter = asyncio.get_running_loop().create_future()
        self._hands_in = hands_in
        self._transport.write(data)
        try:
            async with asyncio.timeout(seconds):
                answers = await self._waiter
        except TimeoutError:
            self.abort()
            if self._refusal():
                return self._replies_so_far()
            reason = f"no answer from the mail server within {seconds:g} s"
            raise (InDoubt if hands_in else TimedOut)(reason) from None
        except asyncio.CancelledError:  # replies that are still to come must not meet the next email
            self.abort()
            raise
        finally:
            self._waiter = None
        self._hands_in = False  # not before this line: a cancelled wait may lose a reply that has come
        return answers

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
        if self._waiter is None:  # most likely "421 shutting down": no reply is expected
            self.close()
            return
        self._buffer += data
        end = 0
        while line := _REPLY_LINE.match(self._buffer, end):
            end = line.end()
            self._lines.append(printable((line[3] or b"").decode(errors="replace")))
            if line[2] != b"-":  # else more lines of this reply follow (RFC 5321, 4.2.1)
                self._replies.append(Reply(int(line[1]), join_lines(self._lines)))
                self._lines.clear()
        del self._buffer[:end]
        if b"\n" in self._buffer or len(self._buffer) + sum(map(len, self._lines)) > _MAX_REPLY:
            self._lose(ValueError("the mail server sent something that is not an SMTP reply"))
        elif len(self._replies) >= self._expected or self._ended_by_server():
            self._answer()

    def eof_received(self) -> None:
        self._lose(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(exc)
        if not self.closed.done():
            self.closed.set_result(None)

    def _answer(self) -> None:
        surplus = len(self._replies) > self._expected
        ended = any(reply.code == 421 for reply in self._replies)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(self._replies_so_far())
        self._replies = []
        if surplus or ended:
            self.close()

    def _replies_so_far(self) -> list[Reply]:
        """As many replies as are expected: the first refusal, or else a 421, takes the place of those that will not
        come.
        """
        missing = self._expected - len(self._replies)
        return self._replies[: self._expected] + [self._refusal() or self._replies[-1]] * missing

    def _refusal(self) -> Reply | None:
        """The first refusal among the replies so far; None if the server has refused nothing."""
        return next((reply for reply in self._replies if reply.code >= 400), None)

    def _ended_by_server(self) -> bool:
        """After a 421 no further reply of a pipelined group will come."""
        return bool(self._replies) and self._replies[-1].code == 421

    def _lose(self, cause: Exception | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            if self._refusal():
                self._waiter.set_result(self._replies_so_far())
            else:
                reason = f"the connection to the mail server broke{f': {cause}' if cause else ''}"
                self._waiter.set_exception((InDoubt if self._hands_in else SessionLost)(reason))
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
