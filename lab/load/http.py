"""`python -m lab.load.http`: an HTTP load generator with N keep-alive connections and one request in flight on each.

This is a closed loop: a connection sends no request while it waits for an answer. So the rate is the most that the
server can do, but the times of a server at its limit look better than they are. Requests are built beforehand. Of an
answer only the status, the length and, with --ids, the id are read. Prints JSON: answers by status, broken
connections, seconds, answers per second, times in ms, and with --ids when each email was requested (perf_counter_ns).
"""

import argparse
import asyncio
import json
import random
import re
import time
from array import array
from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from typing import Any, cast
from urllib.parse import quote

import uvloop

from lab.harness.figures import percentile

TEXT = ("How are you? " * 16)[:200]  # 200 bytes
RECIPIENTS = 10_000  # more than any cache of addresses holds

# The parts of an answer that a load generator reads.
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
ID = re.compile(rb'"id": *"(<[^"]+>)"')
LAST = b"onnection: close"


def email_requests(port: int, recipients: int = RECIPIENTS) -> list[bytes]:
    """The HTTP requests for one email to each recipient."""
    rest = f"Hello/{quote(TEXT)} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
    return [f"GET /reader{n}@example.com/{rest}".encode() for n in range(recipients)]


class Load:
    """What all connections share: the requests that are left, and the answers."""

    def __init__(
        self,
        requests: Sequence[bytes],
        *,
        count: int | None = None,
        seconds: float | None = None,
        pause: float = 0.0,
        ids: bool = False,
    ) -> None:
        """Send `count` requests, or send for `seconds`, whichever ends first. With `ids`, keep the ids of the 2xx.

        `pause` is the mean time in seconds between an answer and the next request of that connection.
        """
        self.statuses: Counter[int] = Counter()
        self.broken = 0
        self.times = array("q")  # ns
        self.ids: list[str] | None = [] if ids else None
        self.asked = array("q")  # ns: when the email with each of the ids was requested
        self._pause = pause
        self._requests = cycle(requests)
        self._left = count
        self._started = self._ended = time.perf_counter_ns()
        self._deadline = self._started + seconds * 1e9 if seconds is not None else None

    @property
    def over(self) -> bool:
        return self._left == 0 or (self._deadline is not None and time.perf_counter_ns() >= self._deadline)

    def next_request(self) -> bytes:
        if self._left is not None:
            self._left -= 1
        return next(self._requests)

    def answered(self, status: int, asked: int, body: bytes) -> None:
        self._ended = time.perf_counter_ns()
        self.times.append(self._ended - asked)
        self.statuses[status] += 1
        if self.ids is not None and status < 300 and (found := ID.search(body)):
            self.ids.append(found[1].decode())
            self.asked.append(asked)

    def next_pause(self) -> float:
        """Random, from 0.5 to 1.5 times the mean, so that requests do not align with the server's timers."""
        return self._pause * random.uniform(0.5, 1.5)

    def result(self) -> dict[str, Any]:
        seconds = (self._ended - self._started) / 1e9
        return {
            "statuses": {str(status): number for status, number in sorted(self.statuses.items())},
            "broken": self.broken,
            "seconds": seconds,
            "rate": len(self.times) / seconds if seconds else 0.0,
            **{f"p{percent}_ms": percentile(self.times, percent) / 1e6 for percent in (50, 99)},
            **({"ids": self.ids, "asked_ns": self.asked.tolist()} if self.ids is not None else {}),
        }


class Client(asyncio.Protocol):
    """One connection. `closed` is done when the connection is closed."""

    def __init__(self, load: Load) -> None:
        self.closed = asyncio.get_running_loop().create_future()
        self._load = load
        self._buffer = b""
        self._asked = 0  # ns; 0: no request is in flight

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from it
        self._ask()

    def _ask(self) -> None:
        if self._load.over or self._transport.is_closing():
            self._transport.close()
        else:
            request = self._load.next_request()
            self._asked = time.perf_counter_ns()
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        length = LENGTH.search(self._buffer, 0, head)
        if length is None or not self._asked:  # an answer without a length, or without a request
            self._transport.abort()
            return
        if len(self._buffer) < head + 4 + int(length[1]):
            return
        self._load.answered(int(self._buffer[9:12]), self._asked, self._buffer[head + 4 :])
        last = LAST in self._buffer[:head]
        self._buffer = b""
        self._asked = 0
        if last:
            self._transport.close()
        elif pause := self._load.next_pause():
            asyncio.get_running_loop().call_later(pause, self._ask)
        else:
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._asked:
            self._load.broken += 1
        self.closed.set_result(None)


async def run_load(load: Load, port: int, connections: int) -> None:
    """Returns when the load is over and all connections are closed. Raises OSError if no server listens."""
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(_stay_connected(load, port))


async def _stay_connected(load: Load, port: int) -> None:
    loop = asyncio.get_running_loop()
    while not load.over:
        _, client = await loop.create_connection(lambda: Client(load), "127.0.0.1", port)
        await client.closed


def main() -> None:
    parser = argparse.ArgumentParser(description="An HTTP load generator for servers on loopback.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--count", type=int, help="requests")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--pause-ms", type=float, default=0.0, help="the mean between an answer and the next request")
    parser.add_argument("--ids", action="store_true", help="print the ids in the answers too")
    options = parser.parse_args()
    requests = email_requests(options.port)
    pause = options.pause_ms / 1000
    load = Load(requests, count=options.count, seconds=options.seconds, pause=pause, ids=options.ids)
    uvloop.run(run_load(load, options.port, options.connections))
    print(json.dumps(load.result()))


if __name__ == "__main__":
    main()
