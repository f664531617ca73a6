"""The one new idea: processes that share nothing and send each other messages.

A pipe of multiprocessing's joined to the event loop: no thread waits for it, and what goes through is JSON, one line a
message, never pickle. A message is a list, its kind first:

    server -> master    ["put", 7, {email}, {email}, …]     keep these; 7 is the number of the question
                        ["stats", 8]   ["health", 9]
    master -> server    ["answer", 7, 2, "the queue is full"]   2 of them are kept, and why not the others
    master -> worker    ["send", {email}]
    worker -> master    ["sent", "<id>"]
                        ["failed", "<id>", "550 no such user", false]   the last: whether another attempt can help
                        ["paused", "Unreachable: …"]   ["paused", null]        nothing is sent for now, and why
    worker -> master    ["ready"]                           it can be sent emails
    both -> master      ["log", "a line"]
    master -> both      ["stop"]
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Self, cast

import orjson

Message = list[Any]

log = logging.getLogger(__name__)


class PipeEnd(asyncio.Protocol):
    """One end of a pipe. `on_message` is called with each message, `on_closed` once, when the other side is gone."""

    def __init__(self, on_message: Callable[[Message], None], on_closed: Callable[[], None]) -> None:
        self._on_message = on_message
        self._on_closed = on_closed
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._to_send: list[bytes] = []

    @classmethod
    async def open(
        cls, connection: Connection, on_message: Callable[[Message], None], on_closed: Callable[[], None]
    ) -> Self:
        """Take over multiprocessing's end of a pipe, which is a socket underneath."""
        end = socket.socket(fileno=os.dup(connection.fileno()))
        connection.close()
        loop = asyncio.get_running_loop()
        _, pipe = await loop.create_unix_connection(lambda: cls(on_message, on_closed), sock=end)
        return pipe

    def send(self, *message: object) -> None:
        """Send with what else this tick of the event loop has to say. To a closed pipe: into the void."""
        if not self._to_send:
            asyncio.get_running_loop().call_soon(self.flush)
        self._to_send.append(orjson.dumps(message))

    def flush(self) -> None:
        if self._to_send and self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"\n".join([*self._to_send, b""]))
        self._to_send.clear()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            try:
                self._on_message(orjson.loads(line))
            except Exception:  # one bad message hurts no other
                log.exception("not a message: %.100r", line)

    def connection_lost(self, error: Exception | None) -> None:
        self._on_closed()

    def close(self) -> None:
        self.flush()
        if self._transport is not None:
            self._transport.close()


class PipeLogHandler(logging.Handler):
    """A child's log: it tells the master."""

    def __init__(self, pipe: PipeEnd) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d %(message)s", datefmt="%H:%M:%S"))
        self._pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        self._pipe.send("log", self.format(record))


class ChildEnd:
    """A child's end of its pipe. It is asked to stop by the master's word or by SIGTERM, and dies with the master."""

    def __init__(self, name: str, connection: Connection, on_message: Callable[[Message], None]) -> None:
        self._name = name
        self._connection = connection
        self._on_message = on_message
        self._stop: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.pipe: PipeEnd

    async def __aenter__(self) -> Self:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the master
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._request_stop, "SIGTERM")
        self.pipe = await PipeEnd.open(self._connection, self._receive, self._master_gone)
        logging.basicConfig(handlers=[PipeLogHandler(self.pipe)], level=logging.INFO)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._request_stop("it has ended")
        self.pipe.close()

    async def stop_requested(self) -> str:
        return await self._stop

    def _receive(self, message: Message) -> None:
        if message[0] == "stop":
            self._request_stop("the master says so")
        else:
            self._on_message(message)

    def _request_stop(self, reason: str) -> None:
        if not self._stop.done():
            self._stop.set_result(reason)

    def _master_gone(self) -> None:
        """What the master held is lost, and only the terminal is left to tell. End at once: a new one may come."""
        if not self._stop.done():
            line = f"[{self._name} @ {os.getpid()}] the master is gone, and what it held is lost\n"
            os.write(1, line.encode())  # in one piece: the other child says the same at the same moment
            os._exit(1)
