"""Limits repeated log lines, so that a log stays readable in an outage."""

import logging
import time


class OncePerSecond:
    """Logs one line a second and counts the lines that it suppresses in between."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._next = 0.0
        self._suppressed = 0

    def warning(self, message: str, *values: object) -> None:
        now = time.monotonic()
        if now < self._next:
            self._suppressed += 1
            return
        more = f" (and {self._suppressed} more such lines before)" if self._suppressed else ""
        self._next, self._suppressed = now + 1.0, 0
        self._log.warning(message + more.replace("%", "%%"), *values)
