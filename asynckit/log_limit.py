"""Limits repeated log lines, so that a log stays readable in an outage."""

import logging
import threading
import time
from dataclasses import dataclass, field

REDIS = "Redis"
"""The cause of the lines that say that Redis cannot be reached or refuses a command."""


@dataclass
class _Second:
    """When the next line may pass. Threads share it: the heartbeat has a thread of its own."""

    next: float = 0.0  # time.monotonic(), seconds
    suppressed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


_shared: dict[str, _Second] = {}


class OncePerSecond:
    """Logs one line a second and counts the lines that it suppresses in between.

    In an outage many parts of a process report the same cause. The limiters with the same `cause` together log one
    line a second; a limiter without a cause counts for itself alone.
    """

    def __init__(self, log: logging.Logger, cause: str | None = None) -> None:
        self._log = log
        self._second = _Second() if cause is None else _shared.setdefault(cause, _Second())

    def warning(self, message: str, *values: object) -> None:
        now, second = time.monotonic(), self._second
        with second.lock:
            if now < second.next:
                second.suppressed += 1
                return
            suppressed, second.suppressed = second.suppressed, 0
            second.next = now + 1.0
        more = f" (and {suppressed} more such lines before)" if suppressed else ""
        self._log.warning(message + more.replace("%", "%%"), *values)
