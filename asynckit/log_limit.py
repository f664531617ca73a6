"""A log that stays readable in an outage."""

import logging
import time


class OncePerSecond:
    """Passes on one line a second and counts what it swallowed in between."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._next = 0.0
        self._swallowed = 0

    def warning(self, message: str, *values: object) -> None:
        now = time.monotonic()
        if now < self._next:
            self._swallowed += 1
            return
        more = f" (and {self._swallowed} more such lines before)" if self._swallowed else ""
        self._next, self._swallowed = now + 1.0, 0
        self._log.warning(message + more.replace("%", "%%"), *values)
