"""The one new idea: processes that share no memory and send each other messages.

The event loop reads and writes the pipe (one of multiprocessing) without a thread. Messages are JSON, one a line, never
pickle, because unpickling runs whatever code the bytes name. A message is a list that starts with its kind:

    server -> master    ["put", 7, {email}, {email}, …]     keep these emails; 7 is the number of the request
                        ["stats", 8]   ["health", 9]
    master -> server    ["answer", 7, 2, "the queue is full"]   2 of them are kept, and why the others are not
    master -> worker    ["send", {email}]
    worker -> master    ["sent", "<id>"]
                        ["failed", "<id>", "550 no such user", false]   false: another attempt cannot help
                        ["paused", "Unreachable: …"]   ["paused", null]        why nothing is sent; null: sending again
    worker -> master    ["ready"]                           the worker can receive emails
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
    """One end of a pipe. `on_message` is called with each message, `on_closed` once, when the other end has closed."""

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
        """Take over a connection of multiprocessing, which is a Unix socket, and close the original."""
        end = socket.socket(fileno=os.dup(connection.fileno()))
        connection.close()
        loop = asyncio.get_running_loop()
        _, pipe = await loop.create_unix_connection(lambda: cls(on_message, on_closed), sock=end)
        return pipe

    def send(self, *message: object) -> None:
        """Send the message together with the others of this tick of the event loop. A closed pipe drops it."""
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
            except Exception:  # one bad message must not keep the others from being read
                log.exception("not a valid message: %.100r", line)

    def connection_lost(self, error: Exception | None) -> None:
        self._on_closed()

    def close(self) -> None:
        self.flush()
        if self._transport is not None:
            self._transport.close()


class PipeLogHandler(logging.Handler):
    """Sends a child's log lines to the master, which prints them."""

    def __init__(self, pipe: PipeEnd) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d %(message)s", datefmt="%H:%M:%S"))
        self._pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        self._pipe.send("log", self.format(record))


class ChildEnd:
    """A child's end of its pipe. The child stops on the master's "stop" or on SIGTERM, and exits if the master dies."""

    def __init__(self, name: str, connection: Connection, on_message: Callable[[Message], None]) -> None:
        self._name = name
        self._connection = connection
        self._on_message = on_message
        self._stop: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.pipe: PipeEnd

    async def __aenter__(self) -> Self:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the master
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._request_stop, "SIGTERM")
        self.pipe = await PipeEnd.open(self._connection, self._receive, self._master_died)
        logging.basicConfig(handlers=[PipeLogHandler(self.pipe)], level=logging.INFO)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._request_stop("the program has ended")
        self.pipe.close()

    async def stop_requested(self) -> str:
        return await self._stop

    def _receive(self, message: Message) -> None:
        if message[0] == "stop":
            self._request_stop("told by the master")
        else:
            self._on_message(message)

    def _request_stop(self, reason: str) -> None:
        if not self._stop.done():
            self._stop.set_result(reason)

    def _master_died(self) -> None:
        """Report on the terminal that the master's emails are lost. Exit at once, as a new master may start soon."""
        if not self._stop.done():
            line = f"[{self._name} @ {os.getpid()}] the master has died, and the emails it held are lost\n"
            os.write(1, line.encode())  # in one call, because the other child writes the same line at the same moment
            os._exit(1)
