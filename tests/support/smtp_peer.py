"""A mail server for tests, with configurable replies. It records every byte from its clients."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asynckit.ids import new_id
from common.mail.emails import Email
from common.mail.errors import LoginFailed, Refused, SendError, Unavailable
from common.settings import Settings

ENVELOPE = {"MAIL": b"250 ok", "RCPT": b"250 ok", "DATA": b"354 go on", ".": b"250 kept", "RSET": b"250 ok"}
CHUNKS = {"BDAT": b"250 go on", "BDAT LAST": b"250 kept"}
CHUNKING = ["PIPELINING", "SMTPUTF8", "CHUNKING"]
OTHERS = {"EHLO": b"", "NOOP": b"250 ok", "QUIT": b"221 bye"}


Refusal = tuple[str, bytes, type[SendError]]

ENVELOPE_REFUSALS: list[Refusal] = [
    ("MAIL", b"550 not you", Refused),
    ("MAIL", b"451 not now", Unavailable),
    ("MAIL", b"530 5.7.0 log in first", LoginFailed),
    ("RCPT", b"550 5.1.1 no such user", Refused),
    ("RCPT", b"450 busy", Unavailable),
    ("RCPT", b"421 going down", Unavailable),
]
DATA_REFUSALS: list[Refusal] = [
    ("DATA", b"554 no", Refused),
    ("DATA", b"451 no", Unavailable),
    (".", b"554 5.7.1 spam", Refused),
    (".", b"451 disk full", Unavailable),
    (".", b"421 going down", Unavailable),
]


def an_email(to: str = "bob@example.com", text: str = "How are you?", subject: str = "Hello") -> Email:
    return Email(new_id("example.com"), to, subject, text)


@dataclass
class SmtpPeer:
    """A test changes the fields, at any time, to change its behaviour.

    replies: its reply to each command, where "." is the end of the message and "BDAT LAST" the last chunk of one. With
    an empty reply it hangs.
    cuts: commands (or "connect") at which it closes the connection instead of replying.
    once: its reply to the next such command only. With an empty reply it closes the connection.
    """

    extensions: list[str] = field(default_factory=lambda: ["PIPELINING", "SMTPUTF8"])
    replies: dict[str, bytes] = field(default_factory=lambda: ENVELOPE | CHUNKS | OTHERS)
    cuts: set[str] = field(default_factory=set)
    once: dict[str, bytes] = field(default_factory=dict)
    at: dict[tuple[str, int], bytes] = field(default_factory=dict)
    """Its reply to the nth such command of all its sessions, from 1. With an empty reply it closes the connection."""
    ahead: str | None = None
    """What it does with commands that it has read together with the end of a message: "drop" them, "cut" the connection
    after its answer to the message or "cut before" it, "refuse" the next command, or "refuse the message".
    """
    hold: bytes | None = None
    """It answers a message that contains this only when `held` is set."""
    held: asyncio.Event = field(default_factory=asyncio.Event)
    cut_after: set[str] = field(default_factory=set)
    """After its reply to these commands it closes the connection."""
    greeting_pause: float = 0.0
    """Seconds before the greeting."""
    most_sessions: int | None = None
    """At one time. It greets a further connection with a 421."""
    most_messages: int | None = None
    """In one session. After these it replies to a command as `over_most_messages` says: (command, reply)."""
    over_most_messages: tuple[str, bytes] = ("DATA", b"452 4.4.5 Maximum number of messages per session exceeded")
    data_after_refusal: bool = True
    """Whether DATA or BDAT is accepted after a refused MAIL or RCPT, as RFC 2920 (3.1) allows; most servers say 503."""
    knows_bdat: bool = True
    """If not, it reads the lines of a chunk as commands and replies 500 to each."""
    latency: float = 0.0
    """Seconds before it replies to what it has read: added to each round trip."""
    greylist_seconds: float = 0.0
    """It refuses a recipient with a 450 until this long after the first attempt."""
    pause: float = 0.0
    """Seconds before its reply to the end of a message."""
    port: int = 0
    raw: bytearray = field(default_factory=bytearray)
    """All bytes from clients, in the order of arrival."""
    commands: list[str] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)
    """The messages that were answered with a 2xx, as they came: with DATA still dot-stuffed, without the final dot."""
    connections: int = 0
    reads: int = 0
    """How often it waited for the client: once per round trip."""
    sent_ahead: int = 0
    """How often commands came together with the end of a message."""
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    sessions: set[asyncio.StreamWriter] = field(default_factory=set)
    conversations: set[asyncio.Task[Any]] = field(default_factory=set)
    first_attempts: dict[bytes, float] = field(default_factory=dict)
    """When each `RCPT TO:<…>` was first seen: time.monotonic(), seconds."""

    def settings(self, **more: Any) -> Settings:
        return settings(smtp_url=f"smtp://127.0.0.1:{self.port}", **more)

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        if task := asyncio.current_task():
            self.conversations.add(task)
        with suppress(ConnectionError, _Cut):
            if "connect" in self.cuts:
                raise _Cut
            if self.most_sessions is not None and len(self.sessions) >= self.most_sessions:
                writer.write(b"421 4.3.2 too many concurrent connections\r\n")
                raise _Cut
            self.sessions.add(writer)
            await asyncio.sleep(self.greeting_pause)
            writer.write(b"220 peer ready\r\n")
            buffer, refused, taken, chunks = b"", False, 0, b""
            while True:
                while b"\r\n" not in buffer:
                    buffer += await self._read(reader)
                line, _, buffer = buffer.partition(b"\r\n")
                command = line.split(b" ")[0].decode(errors="replace").upper()
                if command == "BDAT" and not self.knows_bdat:
                    command = "unknown"
                elif command == "BDAT":
                    size = int(line.split(b" ")[1])
                    while len(buffer) < size:
                        buffer += await self._read(reader)
                    chunk, buffer = buffer[:size], buffer[size:]
                    command = "BDAT LAST" if line.endswith(b" LAST") else "BDAT"
                if limited := self._limited(line, command, taken, refused=refused):
                    self.commands.append(command)
                    writer.write(limited + b"\r\n")
                    refused = True
                    continue
                reply = await self._answer(writer, command) or self.replies.get(command, b"")
                if command in ("MAIL", "RCPT"):
                    refused = not reply.startswith(b"2") or (refused and command == "RCPT")
                    chunks = b""
                if command in CHUNKS and reply.startswith(b"2"):
                    chunks += chunk
                    if command == "BDAT LAST" and not refused:
                        self.messages.append(chunks)
                        taken += 1
                if command == "DATA" and reply.startswith(b"354"):
                    buffer = b"\r\n" + buffer
                    while b"\r\n.\r\n" not in buffer:
                        buffer += await self._read(reader)
                    message, _, buffer = buffer.partition(b"\r\n.\r\n")
                    buffer = self._read_ahead(buffer)
                    if self.hold and self.hold in message:
                        await self.held.wait()
                    reply = await self._answer(writer, ".") or self.replies["."]
                    if reply.startswith(b"2") and not refused:
                        self.messages.append(message[2:] + b"\r\n")
                        taken += 1
                    if buffer and self.ahead == "cut":
                        raise _Cut
        self.sessions.discard(writer)
        writer.close()

    def _read_ahead(self, buffer: bytes) -> bytes:
        """What it goes on with of the commands that came with the end of a message."""
        self.sent_ahead += bool(buffer)
        if not buffer or self.ahead is None:
            return buffer
        if self.ahead == "cut before":
            raise _Cut
        if self.ahead.startswith("refuse"):
            self.once["MAIL" if self.ahead == "refuse" else "."] = b"554 5.5.0 synchronization error"
        return b"" if self.ahead == "drop" else buffer

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        data = await reader.read(1 << 20)
        if not data:
            raise _Cut
        self.reads += 1
        self.raw += data
        await asyncio.sleep(self.latency)
        return data

    def _limited(self, line: bytes, command: str, taken: int, *, refused: bool) -> bytes | None:
        """The reply to this command if a limit or the order of commands requires a special one."""
        if refused and not self.data_after_refusal and command in ("RCPT", "DATA", *CHUNKS):
            return b"503 5.5.1 bad sequence of commands"
        limited, reply = self.over_most_messages
        if command.partition(" ")[0] == limited and self.most_messages is not None and taken >= self.most_messages:
            return reply
        if command == "RCPT" and self.greylist_seconds:
            now = time.monotonic()
            if now - self.first_attempts.setdefault(line, now) < self.greylist_seconds:
                return b"450 4.7.1 greylisted, try again later"
        return None

    async def _answer(self, writer: asyncio.StreamWriter, command: str) -> bytes | None:
        """Reply to the command. Returns the reply if it is one of `once` or `replies`."""
        self.commands.append(command)
        if command in (".", "BDAT LAST") and self.pause:
            await asyncio.sleep(self.pause)
        if (nth := self.at.get((command, self.commands.count(command)))) is not None:
            self.once[command] = nth
        if command in self.cuts or self.once.get(command) == b"":
            self.once.pop(command, None)
            raise _Cut
        if command == "EHLO":
            lines = [b"peer", *(e.encode() for e in self.extensions)]
            writer.write(b"".join(b"250-%s\r\n" % line for line in lines[:-1]) + b"250 %s\r\n" % lines[-1])
        elif reply := self.once.pop(command, self.replies.get(command, b"500 what?")):
            writer.write(reply + b"\r\n")
            if command not in ("QUIT", *self.cut_after):
                return reply
        if command == "QUIT" or command in self.cut_after:
            raise _Cut
        return None

    def drop_connections(self) -> None:
        """Abort all connections, as a kill -9 of the server does."""
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()


class _Cut(Exception):
    pass


@asynccontextmanager
async def smtp_peer(**fields: Any) -> AsyncIterator[SmtpPeer]:
    """Run a peer on a free port of loopback."""
    peer = SmtpPeer(**fields)
    server = await asyncio.start_server(peer.converse, "127.0.0.1", peer.port)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        peer.drop_connections()
        await asyncio.gather(*peer.conversations)


def settings(**values: Any) -> Settings:
    """Settings from these values and the defaults, without a data folder. `.env` is ignored."""
    return Settings(_env_file=None, **{"data_dir": Path(__file__) / "is no folder", **values})  # type: ignore[call-arg]  # pydantic-settings' own argument
