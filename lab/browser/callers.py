"""The callers of one lane: they request emails and report every answer."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from urllib.parse import quote

from asynckit.tasks import background, end_tasks
from lab.load.http import ID
from lab.load.steady import Connection

TEXT = quote("How are you?")
TIMEOUT = 15.0  # how long a caller waits for its answer
MOST = 200  # callers of a lane at the same moment: when all of them wait, the lane falls behind


class Callers:
    """`on_asked(number, due, asked)` and `on_answered(number, answered, status, id)` get every event; times in ns.

    A caller without an answer reports the status 0 and the time 0. No request is repeated.
    """

    def __init__(
        self, on_asked: Callable[[int, int, int], object], on_answered: Callable[[int, int, int, str], object]
    ) -> None:
        self.port = 0
        """The port of the strategy's web server; 0: it has not started yet."""
        self.tag = ""
        self.query = ""
        self.rate = 0.0
        """Emails per second."""
        self.waiting: set[int] = set()
        """The numbers of the emails whose caller waits for the answer."""
        self._on_asked, self._on_answered = on_asked, on_answered
        self._numbers = 0
        self._late: deque[int] = deque()  # when the emails that are due were due (ns); all callers are waiting
        self._credit = 0.0
        self._idle: list[Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def behind(self) -> int:
        """How many emails are due and not requested yet."""
        return len(self._late)

    def start_over(self, tag: str) -> None:
        """The next emails go to <TAG>-0@example.com and so on. Answers that have not come yet are not reported."""
        self.tag, self._numbers = tag, 0
        self.waiting.clear()
        self._late.clear()

    def tick(self, seconds: float) -> None:
        """Request what is due at this rate after these seconds."""
        self._credit += self.rate * seconds
        self.burst(int(self._credit))
        self._credit %= 1.0

    def burst(self, count: int) -> None:
        """Request this number of emails now. Does nothing while the strategy starts."""
        if not self.port:
            return
        self._late.extend([time.perf_counter_ns()] * count)
        self._ask_those_due()

    async def close(self) -> None:
        self.rate = 0.0
        self._late.clear()
        await end_tasks(list(self._tasks))
        self._close_idle()

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _ask_those_due(self) -> None:
        while self._late and len(self._tasks) < MOST and self.port:
            number, self._numbers = self._numbers, self._numbers + 1
            self.waiting.add(number)
            self._on_asked(number, self._late.popleft(), time.perf_counter_ns())
            task = background(self._ask(self.tag, number), "a caller")
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._ask_those_due()

    async def _ask(self, tag: str, number: int) -> None:
        connection = self._idle.pop() if self._idle else Connection(self.port)
        status, body = 0, b""
        try:
            async with asyncio.timeout(TIMEOUT):
                status, body = await connection.ask(f"/{tag}-{number}@example.com/Hello/{TEXT}{self.query}")
        except (OSError, EOFError, TimeoutError, ValueError):
            connection.close()
            self._close_idle()
        else:
            self._idle.append(connection)
        if tag == self.tag:
            self.waiting.discard(number)
            found = ID.search(body) if 200 <= status < 300 else None
            answered = time.perf_counter_ns() if status else 0
            self._on_answered(number, answered, status, found[1].decode() if found else "")
