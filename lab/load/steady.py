"""`python -m lab.load.steady`: request emails at a steady rate, however slow the answers are.

This is an open loop. Email number k is due at start + k / rate, even if earlier requests still wait for their answers,
and its time is measured from the moment when it was due. So a server that stops for a second is charged for all
requests that were due in that second. A closed loop would charge it only for the few that were waiting, a fault known
as coordinated omission. The number of requests in flight grows as needed: a request uses an idle connection, or opens
a new one if there is none. With `--rate 0` this is a closed loop: each of `--clients` sends its next request as soon as
it has its answer.

With `--exact` requests are sent microseconds after they are due. Without it they can be a ms late, like any timer. That
does not matter for faults, but it does for an answer that takes half a ms.

Email k goes to <TAG>-<k>@example.com, so that the mail server's journal says which request an email belongs to, even if
that request was never answered. No request is repeated.

Prints the start time (ns), then lines of JSON with the figures so far, and at the end one line with all results.
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
FIGURES_SECONDS = 0.1  # between two lines of figures
RECENT = 200  # answers that count for these figures
CLIENTS = 10  # of a closed loop, by default
MAX_IN_FLIGHT = 1000  # requests in an open loop, so that there are enough open files
FILES = MAX_IN_FLIGHT + 24
# uvloop's timers have steps of 1 ms. With `--exact` the generator reads the clock in a loop just before an email is
# due. It spends at most a tenth of the time in that loop, because the server needs the core. So above 100 emails per
# second the timer's steps become visible again.
SPIN_NS, SPIN_SHARE = 1_500_000, 0.1

Record = tuple[int, int, int, int, int, str]
"""Number, due, asked, answered (ns; 0: never), status (0: no answer), id ("": none)."""


class Steady:
    """Sends the requests when they are due, and records the answers."""

    def __init__(
        self, port: int, rate: float, tag: str, query: str, limit: int | None, timeout: float, *, exact: bool = False
    ) -> None:
        """`rate` is in emails per second, `limit` in emails. A request fails if it has no answer after `timeout` s."""
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
        self._max_in_flight = 0  # the highest number of requests in flight so far

    async def run(self, clients: int) -> None:
        """Returns when all requests have been answered, or after `stop`. At most `clients` requests are in flight."""
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
                    could_ask = asked  # the delay until now was caused by the server
                if due:
                    self._late.append(asked - max(due, could_ask))
                self.asked += 1
                self._max_in_flight = max(self._max_in_flight, self.asked - len(self.records))
                group.create_task(self._ask(number, due or asked, asked)).add_done_callback(lambda _: free.release())
        for connection in self._idle:
            connection.close()

    def stop(self) -> None:
        """Send no more requests."""
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
        """Wait until this email is due. Returns when it was due, in ns; 0 in a closed loop."""
        if not self._interval:
            return 0
        due = self.start + round(number * self._interval)
        while (left := due - time.perf_counter_ns()) > 0 and not self._stopped.is_set():
            if left <= self._spin:
                await asyncio.sleep(0)  # lets the event loop read answers
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
            "max_in_flight": self._max_in_flight,
            "cpu": (time.process_time() - self._cpu) / seconds,
        }


class Connection:
    """An HTTP/1.1 connection, kept alive until the server closes it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, path: str) -> tuple[int, bytes]:
        """The status and the body. Raises OSError or EOFError when the connection breaks before the answer."""
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
    """Raise the limit of open files to what a full open loop needs, if the system allows it. macOS starts with 256."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES:
        most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def main() -> None:
    parser = argparse.ArgumentParser(description="An HTTP load generator with a steady rate.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="emails per second; 0: as fast as the clients can")
    clients = f"maximum of requests in flight; default: {CLIENTS}, or {MAX_IN_FLIGHT} at a rate"
    parser.add_argument("--clients", type=int, help=clients)
    parser.add_argument("--count", type=int, help="emails; default: until SIGTERM")
    parser.add_argument("--tag", default="reader", help="the beginning of the recipients' names")
    parser.add_argument("--query", default="", help="?wait=5")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds")
    parser.add_argument("--exact", action="store_true", help="send within microseconds, with up to a tenth of a core")
    options = parser.parse_args()
    if options.exact and not options.rate:
        parser.error("--exact needs a --rate")
    if options.clients is not None and options.clients < 1:
        parser.error("--clients must be at least 1")
    allow_open_files()
    about = (options.port, options.rate, options.tag, options.query, options.count, options.timeout)
    steady = Steady(*about, exact=options.exact)
    await run_steadily(steady, options.clients or (MAX_IN_FLIGHT if options.rate else CLIENTS))
    print(json.dumps(steady.result()))


if __name__ == "__main__":
    run(main())
