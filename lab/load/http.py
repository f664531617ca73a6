"""`python -m lab.load.http`: an HTTP load generator. N keep-alive connections, each with one request under way.

A closed loop: who waits for an answer asks nothing meanwhile, so times of a server at its limit are flattering, and its
rate is what it can do. Requests are built beforehand; of an answer only the status, the length and, if asked for, the
id are read. Prints JSON: answers by status, connections that broke, seconds, answers a second, times in ms; with the
ids also when each was asked for (perf_counter_ns).
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

# What a load generator reads of an answer.
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
ID = re.compile(rb'"id": *"(<[^"]+>)"')
LAST = b"onnection: close"


def email_requests(port: int, recipients: int = RECIPIENTS) -> list[bytes]:
    """A request for an email to each of so many recipients."""
    rest = f"Hello/{quote(TEXT)} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
    return [f"GET /reader{n}@example.com/{rest}".encode() for n in range(recipients)]


class Load:
    """What all connections share: what is left to ask, and what was answered."""

    def __init__(
        self,
        requests: Sequence[bytes],
        *,
        count: int | None = None,
        seconds: float | None = None,
        pause: float = 0.0,
        ids: bool = False,
    ) -> None:
        """Ask `count` times or for so many `seconds`, whichever ends first; with `ids`, keep the ids of the 2xx.

        `pause` is the mean of the seconds between an answer and the next request of that connection.
        """
        self.statuses: Counter[int] = Counter()
        self.broken = 0
        self.times = array("q")  # ns
        self.ids: list[str] | None = [] if ids else None
        self.asked = array("q")  # ns: when each of the ids was asked for
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
        """Of chance, from half to one and a half times the mean: in step with nobody's timer."""
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
    """One connection. `closed` is done when it is gone."""

    def __init__(self, load: Load) -> None:
        self.closed = asyncio.get_running_loop().create_future()
        self._load = load
        self._buffer = b""
        self._asked = 0  # ns; 0: no request is under way

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance
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
        if length is None or not self._asked:  # not what this client speaks
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
    """Returns when the load is over and all connections are closed. Fails if nobody listens."""
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
