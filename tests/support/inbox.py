"""The embedded inbox in this process, and an SMTP conversation with it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientSession, web

from common.services.inbox.faults import Dial
from common.services.inbox.smtp import SmtpServer
from common.services.inbox.store import Store
from tests.support.programs import LIMIT


@dataclass
class Box:
    """An inbox in this process."""

    store: Store
    dial: Dial
    smtp: SmtpServer
    app: web.Application
    http: ClientSession

    async def json(self, path: str) -> Any:
        response = await self.http.get(path)
        assert response.status == 200, await response.text()
        return await response.json()

    async def turn(self, **faults: Any) -> None:
        response = await self.http.put("/api/faults", json=faults)
        assert response.status == 200, await response.text()


class Conversation:
    """A minimal SMTP client that sends exactly the given bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    async def reply(self) -> str:
        """The next complete reply, its lines joined; "" if the server has closed the connection."""
        lines: list[str] = []
        async with asyncio.timeout(LIMIT):
            while not lines or lines[-1][3:4] == "-":
                try:
                    line = (await self.reader.readline()).decode()
                except ConnectionError:
                    line = ""
                if not line:
                    return ""
                lines.append(line.rstrip("\r\n"))
        return "\n".join(lines)

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def ask(self, *commands: str) -> list[str]:
        """Send the commands at once and return their replies."""
        self.write("".join(f"{command}\r\n" for command in commands).encode())
        return [await self.reply() for _ in commands]

    async def begin(self, raw: bytes, to: str = "alice@example.com", smtputf8: str = "") -> None:
        """Send a message, up to the final dot, without waiting for the reply."""
        replies = await self.ask(f"MAIL FROM:<workshop@example.com>{smtputf8}", f"RCPT TO:<{to}>", "DATA")
        assert [reply[:3] for reply in replies] == ["250", "250", "354"]
        self.write(raw.replace(b"\r\n.", b"\r\n..") + b".\r\n")

    async def send(self, raw: bytes, to: str = "alice@example.com", smtputf8: str = "") -> str:
        await self.begin(raw, to, smtputf8)
        return await self.reply()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


@contextlib.asynccontextmanager
async def conversation(port: int) -> AsyncIterator[Conversation]:
    talk = Conversation(*await asyncio.open_connection("127.0.0.1", port))
    try:
        assert (await talk.reply()).startswith("220 ")
        await talk.ask("EHLO test")
        yield talk
    finally:
        await talk.close()


def mail(message_id: str = "<1@test>", subject: str = "Hello", text: str = "How are you?") -> bytes:
    return f"From: workshop@example.com\r\nSubject: {subject}\r\nMessage-ID: {message_id}\r\n\r\n{text}\r\n".encode()
