"""`python -m lab.load.steady`: emails asked for at a steady rate, whatever becomes of them.

An open loop. Email number k is due at start + k / rate, whoever still waits for an answer, and its time counts from
the moment it was due: a server that stands still for a second is charged for all who would have asked meanwhile, not
for the few that it kept waiting (the fault of closed loops, "coordinated omission"). So as many requests are under
way as that takes: a connection that has its answer is used again, and when there is none a new one is opened. With
`--rate 0` it is a closed loop: each of `--clients` asks as soon as it has its answer.

With `--exact` the asking itself is late by microseconds. Without, by a ms at times, as timers are: that is nothing
beside a fault, and too much beside an answer that takes half a ms.

Email k goes to <TAG>-<k>@example.com, so that the mail server's journal says which request an email came from, even if
that request was never answered. Nothing is repeated.

Prints the moment of the start (ns), then lines of JSON with figures so far, in the end one with everything.
"""

import argparse
import asyncio
import json
import resource
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Any
from urllib.parse import quote

from common.processes.process import run, stop_requested
from lab.harness.figures import percentile
from lab.load.http import ID, LAST, LENGTH

TEXT = quote("How are you?")
FIGURES_SECONDS = 0.1  # between two lines
RECENT = 200  # answers that the figures so far are made of
CLIENTS = 10  # of a closed loop, unless told otherwise
MOST = 1000  # requests under way in an open loop, so that open files suffice
FILES = MOST + 24
# uvloop's timers have steps of 1 ms. With `--exact` the last moment before an email is due is spent in asking the clock
# again and again, but no more than a tenth of the time: the server needs its core. So above 100 emails a second the
# timer shows again, the more the faster they come.
SPIN_NS, SPIN_SHARE = 1_500_000, 0.1

Record = tuple[int, int, int, int, int, str]
"""Number, due, asked, answered (ns; 0: never), status (0: no answer), id ("": none)."""


class Steady:
    """What is due next, who is free to ask for it, and what was answered."""

    def __init__(
        self, port: int, rate: float, tag: str, query: str, limit: int | None, timeout: float, *, exact: bool = False
    ) -> None:
        """`rate` in emails a second, `limit` in emails; who has no answer after `timeout` seconds gives up."""
        self.records: list[Record] = []
        self.asked = self.accepted = 0
        self.start = time.perf_counter_ns()
        self._cpu = time.process_time()
        self._port = port
        self._interval = 1e9 / rate if rate else 0.0  # ns
        self._spin = min(SPIN_NS, self._interval * SPIN_SHARE) if exact else 0.0  # ns
        self._tag = tag
        self._query = query
        self._numbers: Iterator[int] = iter(range(limit)) if limit else count()
        self._timeout = timeout
        self._stopped = asyncio.Event()
        self._idle: list[Connection] = []
        self._late: list[int] = []
        self._under_way = 0  # at most

    async def run(self, clients: int) -> None:
        """Until all have been asked for, or until `stop`. At most so many requests are under way at a time."""
        free, could_ask = asyncio.Semaphore(clients), 0
        async with asyncio.TaskGroup() as group:
            for number in self._numbers:
                due = await self._wait_for(number)
                all_wait = free.locked()
                await free.acquire()
                if self._stopped.is_set():
                    break
                asked = time.perf_counter_ns()
                if all_wait:
                    could_ask = asked  # what is late until now is the server's doing
                if due:
                    self._late.append(asked - max(due, could_ask))
                self.asked += 1
                self._under_way = max(self._under_way, self.asked - len(self.records))
                group.create_task(self._ask(number, due or asked, asked)).add_done_callback(lambda _: free.release())
        for connection in self._idle:
            connection.close()

    def stop(self) -> None:
        """Ask for nothing new."""
        self._stopped.set()

    async def _ask(self, number: int, due: int, asked: int) -> None:
        connection = self._idle.pop() if self._idle else Connection(self._port)
        status, body = 0, b""
        try:
            async with asyncio.timeout(self._timeout):
                status, body = await connection.ask(f"/{self._tag}-{number}@example.com/Hello/{TEXT}{self._query}")
        except (OSError, EOFError, TimeoutError, ValueError):
            connection.close()
        else:
            self._idle.append(connection)
        answered = time.perf_counter_ns() if status else 0
        found = ID.search(body) if 200 <= status < 300 else None
        self.accepted += found is not None
        self.records.append((number, due, asked, answered, status, found[1].decode() if found else ""))

    async def _wait_for(self, number: int) -> int:
        """The moment when this number is due, once it has come; 0 in a closed loop."""
        if not self._interval:
            return 0
        due = self.start + round(number * self._interval)
        while (left := due - time.perf_counter_ns()) > 0 and not self._stopped.is_set():
            if left <= self._spin:
                await asyncio.sleep(0)  # answers are read meanwhile
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout((left - self._spin) / 1e9):
                    await self._stopped.wait()
        return due

    def figures(self) -> dict[str, Any]:
        times = [record[3] - record[1] for record in self.records[-RECENT:] if record[3]]
        return {
            "asked": self.asked,
            "accepted": self.accepted,
            "p50_ms": percentile(times, 50) / 1e6 if times else None,
        }

    def result(self) -> dict[str, Any]:
        seconds = (time.perf_counter_ns() - self.start) / 1e9
        return {
            "records": sorted(self.records),
            "seconds": seconds,
            **{f"late_p{p}_ms": percentile(self._late, p) / 1e6 if self._late else 0.0 for p in (50, 99)},
            "under_way": self._under_way,
            "cpu": (time.process_time() - self._cpu) / seconds,
        }


class Connection:
    """HTTP/1.1, kept alive as long as the server likes."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, path: str) -> tuple[int, bytes]:
        """The status and the body. Raises OSError or EOFError when the connection breaks: the answer is unknown."""
        if self._writer is None or self._reader is None or self._reader.at_eof():
            self.close()
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n\r\n".encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        if length is None:
            raise ValueError("an answer without a length")
        body = await self._reader.readexactly(int(length[1]))
        if LAST in head:
            self.close()
        return int(head[9:12]), body

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


async def run_steadily(steady: Steady, clients: int) -> None:
    print(steady.start, flush=True)
    running = asyncio.create_task(steady.run(clients))
    stop = asyncio.create_task(stop_requested())
    while not running.done():
        await asyncio.wait([running, stop], timeout=FIGURES_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if stop.done():
            steady.stop()
            await running
        print(json.dumps(steady.figures()), flush=True)
    stop.cancel()
    await running


def allow_open_files() -> None:
    """As many as a full open loop needs, where the system lets us: macOS starts with 256."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES:
        most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def main() -> None:
    parser = argparse.ArgumentParser(description="An HTTP load generator with a steady rate.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="emails a second; 0: as fast as the clients can")
    parser.add_argument(
        "--clients", type=int, help=f"requests in flight at most; default: {CLIENTS}, or {MOST} at a rate"
    )
    parser.add_argument("--count", type=int, help="emails; default: until SIGTERM")
    parser.add_argument("--tag", default="reader", help="the beginning of the recipients' names")
    parser.add_argument("--query", default="", help="?wait=5")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds")
    parser.add_argument("--exact", action="store_true", help="late by microseconds, for up to a tenth of a core")
    options = parser.parse_args()
    if options.exact and not options.rate:
        parser.error("--exact has a meaning only at a --rate")
    if options.clients is not None and options.clients < 1:
        parser.error("--clients must be at least 1")
    allow_open_files()
    about = (options.port, options.rate, options.tag, options.query, options.count, options.timeout)
    steady = Steady(*about, exact=options.exact)
    await run_steadily(steady, options.clients or (MOST if options.rate else CLIENTS))
    print(json.dumps(steady.result()))


if __name__ == "__main__":
    run(main())
