"""`python -m lab.harness.sink`: an SMTP server that drops every email, and records its Message-ID and arrival time.

Prints its port. Two commands are for the experiments: XCOUNT answers `250 <messages so far>`, and XARRIVALS answers
`<ns> <Message-ID>` for every message, one per line of its reply. The clock is perf_counter_ns, which all processes of
a machine share. It trusts its clients: it accepts commands in any order and messages of any size.
"""

import argparse
import asyncio
import re
import time
from array import array
from typing import cast

from common.processes.process import run, stop_requested

EXTENSIONS = ("PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8")
REPLIES = {
    b"HELO": b"250 lab.harness.sink\r\n",
    b"MAIL": b"250 ok\r\n",
    b"RCPT": b"250 ok\r\n",
    b"DATA": b"354 go on, end with a dot\r\n",
    b"RSET": b"250 ok\r\n",
    b"NOOP": b"250 ok\r\n",
    b"QUIT": b"221 bye\r\n",
}
_MESSAGE_ID = re.compile(rb"^message-id:[ \t]*(\S+)", re.IGNORECASE | re.MULTILINE)


class Sink:
    """What all sessions share. `latency` (seconds) is added to each reply, and so to each round trip."""

    def __init__(self, latency: float = 0.0, *, chunking: bool = True) -> None:
        self.latency = latency
        offered = [name for name in EXTENSIONS if chunking or name != "CHUNKING"]
        lines = [b"250-%s\r\n" % name.encode() for name in ("lab.harness.sink", *offered)]
        self.hello = b"".join([*lines[:-1], lines[-1].replace(b"-", b" ", 1)])
        self.ids: list[bytes] = []
        """The Message-ID of each message, in the order of arrival; empty if it has none."""
        self.times = array("q")
        """When each final dot was read, in ns (perf_counter_ns)."""

    async def listen(self, port: int) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: SinkSession(self), "127.0.0.1", port, backlog=1024)

    def keep(self, message: bytes | bytearray) -> None:
        self.times.append(time.perf_counter_ns())
        found = _MESSAGE_ID.search(message)
        self.ids.append(bytes(found[1]) if found else b"")


class SinkSession(asyncio.Protocol):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._buffer = bytearray()
        self._in_message = False
        self._chunk_left: int | None = None  # bytes of the chunk that have not been read yet
        self._chunks = bytearray()  # of the message that is not complete yet
        self._last = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from it
        self._answer(b"220 lab.harness.sink ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        """Answer all complete commands in one write, so that pipelined commands get their replies together."""
        self._buffer += data
        replies = []
        while (reply := self._next_reply()) is not None:
            replies.append(reply)
        if replies:
            self._answer(b"".join(replies))

    def _next_reply(self) -> bytes | None:
        """The reply to the next complete command or message in the buffer; None if there is none."""
        if self._chunk_left is not None:
            return self._reply_to_chunk()
        mark = b"\r\n.\r\n" if self._in_message else b"\r\n"
        end = self._buffer.find(mark)
        if end < 0:
            return None
        taken = self._buffer[:end]
        del self._buffer[: end + len(mark)]
        if self._in_message:
            self._in_message = False
            self._sink.keep(taken)
            return b"250 ok\r\n"
        return self._reply_to(bytes(taken).upper())

    def _reply_to_chunk(self) -> bytes | None:
        taken = self._buffer[: self._chunk_left]
        del self._buffer[: len(taken)]
        self._chunks += taken
        self._chunk_left = (self._chunk_left or 0) - len(taken)
        if self._chunk_left:
            return None
        self._chunk_left = None
        if self._last:
            self._sink.keep(self._chunks)
            self._chunks.clear()
        return b"250 ok\r\n"

    def _reply_to(self, line: bytes) -> bytes | None:
        verb = line[:4]
        if verb == b"BDAT":  # RFC 3030
            _, size, *last = line.split()
            self._chunk_left, self._last = int(size), bool(last)
            return self._reply_to_chunk()
        if verb == b"EHLO":
            return self._sink.hello
        if verb == b"MAIL":
            self._chunks.clear()
        if verb == b"DATA":
            self._in_message = True
            self._buffer[:0] = b"\r\n"  # so that the dot of an empty message is on a line of its own too
        if line == b"XCOUNT":
            return b"250 %d\r\n" % len(self._sink.ids)
        if line == b"XARRIVALS":
            arrivals = zip(self._sink.times, self._sink.ids, strict=True)
            return b"".join([b"250-%d %s\r\n" % arrival for arrival in arrivals]) + b"250 all\r\n"
        return REPLIES.get(verb, b"502 not here\r\n")

    def _answer(self, replies: bytes) -> None:
        if self._sink.latency:
            asyncio.get_running_loop().call_later(self._sink.latency, self._write, replies)
        else:
            self._write(replies)

    def _write(self, replies: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(replies)
            if replies.endswith(REPLIES[b"QUIT"]):
                self._transport.close()


async def serve(port: int, sink: Sink) -> None:
    server = await sink.listen(port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await stop_requested()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="An SMTP server that counts every email and drops it.")
    parser.add_argument("--port", type=int, default=0, help="0: any free port, which is printed")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="added to each round trip")
    parser.add_argument("--no-chunking", action="store_true", help="do not offer CHUNKING")
    options = parser.parse_args()
    run(serve(options.port, Sink(options.latency_ms / 1000, chunking=not options.no_chunking)))


if __name__ == "__main__":
    main()
