"""`python -m lab.load.smtp`: a bare SMTP conversation, about the fastest that a correct client in Python can be.

PIPELINING and DATA, so two round trips for a message (RFC 2920: after DATA wait for the 354). It builds one message
beforehand and sends it again and again, and of the replies it only counts the lines. Prints the same JSON as
lab/load/mailer.py.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Callable
from typing import cast

import uvloop

from asynckit.ids import new_id
from common.mail.emails import Email, read_address
from common.mail.message import build_message
from lab.harness.figures import percentile
from lab.load.http import TEXT

ENVELOPE = b"MAIL FROM:<workshop@example.com>\r\nRCPT TO:<reader@example.com>\r\nDATA\r\n"


def one_message() -> bytes:
    email = Email(new_id("example.com"), "reader@example.com", "Hello", TEXT)
    return build_message(email, read_address("workshop@example.com"), read_address(email.to)) + b".\r\n"


class Conversation(asyncio.Protocol):
    """One session. It starts no message after `deadline` (perf_counter, seconds) and adds ns per message to `times`."""

    def __init__(self, message: bytes, deadline: float, times: list[int]) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self._message = message
        self._deadline = deadline
        self._times = times
        self._lines = 1  # reply lines to wait for. The first is the greeting
        self._next = self._hello

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from it

    def data_received(self, data: bytes) -> None:
        if data[:1] not in (b"2", b"3"):
            self._finish(ValueError(f"the server said {data!r}"))
            return
        self._lines -= data.count(b"\n")
        if self._lines == 0:
            self._next()

    def _hello(self) -> None:
        self._say(b"HELO lab\r\n", 1, self._envelope)  # its reply is one line

    def _envelope(self) -> None:
        if time.perf_counter() >= self._deadline:
            self._finish(None)
            return
        self._started = time.perf_counter_ns()
        self._say(ENVELOPE, 3, self._hand_in)

    def _hand_in(self) -> None:
        self._say(self._message, 1, self._handed_in)

    def _handed_in(self) -> None:
        self._times.append(time.perf_counter_ns() - self._started)
        self._envelope()

    def _say(self, data: bytes, lines: int, then: Callable[[], None]) -> None:
        self._lines, self._next = lines, then
        self._transport.write(data)

    def _finish(self, error: Exception | None) -> None:
        self._transport.close()
        if not self.done.done():
            self.done.set_exception(error) if error else self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(exc or ConnectionError("the server closed the session"))


async def converse(port: int, sessions: int, seconds: float, message: bytes) -> tuple[list[int], float]:
    """The time of each message in ns, and the total time in seconds."""
    loop = asyncio.get_running_loop()
    times: list[int] = []
    started = time.perf_counter()
    pairs = [
        await loop.create_connection(lambda: Conversation(message, started + seconds, times), "127.0.0.1", port)
        for _ in range(sessions)
    ]
    await asyncio.gather(*[conversation.done for _, conversation in pairs])
    return times, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description="A bare SMTP conversation with a server on loopback.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    times, seconds = uvloop.run(converse(options.port, options.sessions, options.seconds, one_message()))
    figures = {f"p{percent}_ms": percentile(times, percent) / 1e6 for percent in (50, 99)}
    print(json.dumps({"sent": len(times), "seconds": seconds, "rate": len(times) / seconds, **figures}))


if __name__ == "__main__":
    main()
