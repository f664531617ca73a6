"""A bounded queue in memory: emails that wait, that are in flight, and that wait for another attempt.

It decides *when* and *how often* an email is handed out; the function `hand_out` decides how it is sent. Strategy 3 has
one in its master and hands emails out to another process; strategy 4 has one in each worker. The emails are stored
nowhere else: if the process dies, they are lost.
"""

import asyncio
import heapq
import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from asynckit.backoff import Pause, backoff_seconds
from asynckit.log_limit import OncePerSecond
from common.mail.errors import CannotAccept

LIMIT_BYTES = 128 << 20  # of memory, estimated: about 180,000 emails of 200 bytes
OVERHEAD_BYTES = 400  # of memory for each email in addition to its payload: id, entry, places in the collections

Payload = TypeVar("Payload")

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Entry(Generic[Payload]):
    id: str
    payload: Payload
    size: int  # bytes
    accepted: float  # time.monotonic(), seconds
    attempts: int = 0  # failed ones


class MemoryQueue(Generic[Payload]):
    """Hands out emails, oldest first and at most `window` at a time, while it is open."""

    def __init__(
        self,
        hand_out: Callable[[Entry[Payload]], None],
        attempts: int,
        window: int,
        limit: int = LIMIT_BYTES,
        pause: Pause = backoff_seconds,
    ) -> None:
        self.accepted = self.sent = self.failed = self.retried = 0
        self.bytes = 0
        self._hand_out = hand_out
        self._attempts = attempts
        self._pause = pause
        self._window = window
        self._limit = limit
        self._entries: dict[str, Entry[Payload]] = {}  # all entries, in order of arrival
        self._waiting: deque[Entry[Payload]] = deque()
        self._in_flight: dict[str, Entry[Payload]] = {}
        self._retries: list[tuple[float, int, Entry[Payload]]] = []  # heap: due time (of the loop), number, entry
        self._timer: asyncio.TimerHandle | None = None
        self._open = False
        self._empty: asyncio.Event = asyncio.Event()
        self._empty.set()
        self._retry_log = OncePerSecond(log)

    def check_room(self) -> None:
        """Raises CannotAccept if the limit is reached."""
        if self.bytes >= self._limit:
            raise CannotAccept(f"the queue is full: {len(self._entries)} emails")

    def put(self, email_id: str, payload: Payload, size: int) -> None:
        """Add an email, unless one with the same id is in the queue already. Raises CannotAccept at the limit."""
        if email_id in self._entries:
            return
        self.check_room()
        entry = Entry(email_id, payload, size + OVERHEAD_BYTES, time.monotonic())
        self._entries[email_id] = entry
        self._waiting.append(entry)
        self._empty.clear()
        self.accepted += 1
        self.bytes += entry.size
        self._hand_out_waiting()

    def open(self) -> None:
        """Start to hand out emails, because the sender is ready."""
        self._open = True
        self._hand_out_waiting()

    def close(self) -> None:
        """Stop handing out, because the sender has died. Emails in flight go back to the front of the queue."""
        self._open = False
        self._waiting.extendleft(reversed(self._in_flight.values()))
        self._in_flight.clear()

    def mark_sent(self, email_id: str) -> None:
        if entry := self._in_flight.pop(email_id, None):
            self.sent += 1
            self._forget(entry)
        self._hand_out_waiting()

    def mark_failed(self, email_id: str, reason: str, *, again: bool) -> None:
        """Record a failed attempt. With `again`, the email is tried again after a pause if attempts are left."""
        if entry := self._in_flight.pop(email_id, None):
            entry.attempts += 1
            if again and entry.attempts < self._attempts:
                self.retried += 1
                self._retry_later(entry, reason)
            else:
                self.failed += 1
                log.error("gave up %s after %d attempt(s): %s", entry.id, entry.attempts, reason)
                self._forget(entry)
        self._hand_out_waiting()

    async def drain(self, seconds: float) -> None:
        """Wait until the queue is empty, at most `seconds`."""
        if self._entries:
            log.info("waiting up to %g s for %d emails", seconds, len(self._entries))
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._empty.wait()

    def log_lost(self, reason: str) -> None:
        """Log the id of each email that is lost when this process ends."""
        for email_id in self._entries:
            log.error("lost %s: %s", email_id, reason)

    def stats(self) -> dict[str, Any]:
        """The figures of /stats. Emails that wait for another attempt count as waiting."""
        oldest = next(iter(self._entries.values()), None)
        return {
            "accepted": self.accepted,
            "sent": self.sent,
            "failed": self.failed,
            "retried": self.retried,
            "waiting": len(self._entries) - len(self._in_flight),
            "in_flight": len(self._in_flight),
            "next_attempt_seconds": self._next_attempt_seconds(),
            "oldest_wait_seconds": time.monotonic() - oldest.accepted if oldest else 0.0,
        }

    def _next_attempt_seconds(self) -> float | None:
        """Seconds until the next email is tried again; None if none waits for another attempt."""
        return max(0.0, self._retries[0][0] - asyncio.get_running_loop().time()) if self._retries else None

    def __len__(self) -> int:
        return len(self._entries)

    def _hand_out_waiting(self) -> None:
        while self._open and self._waiting and len(self._in_flight) < self._window:
            entry = self._waiting.popleft()
            self._in_flight[entry.id] = entry
            self._hand_out(entry)

    def _retry_later(self, entry: Entry[Payload], reason: str) -> None:
        pause = self._pause(entry.attempts)
        self._retry_log.warning("%s again in %.1f s: %s", entry.id, pause, reason)
        loop = asyncio.get_running_loop()
        heapq.heappush(self._retries, (loop.time() + pause, self.retried, entry))
        if self._retries[0][2] is entry:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop, due = asyncio.get_running_loop(), self._retries[0][0] if self._retries else None
        self._timer = None if due is None else loop.call_at(due, self._requeue_due)

    def _requeue_due(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._retries and self._retries[0][0] <= now:
            self._waiting.append(heapq.heappop(self._retries)[2])
        self._timer = None
        self._set_timer()
        self._hand_out_waiting()

    def _forget(self, entry: Entry[Payload]) -> None:
        del self._entries[entry.id]
        self.bytes -= entry.size
        if not self._entries:
            self._empty.set()
