"""Log lines that a terminal cannot act on: what came from another program may hold line breaks and escape sequences."""

import logging
from types import TracebackType

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class PrintableFormatter(logging.Formatter):
    """Escapes every character that is not printable. Only a traceback has several lines."""

    _second = -1
    _formatted = ""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        """Formats each second once: a busy worker writes thousands of lines in a second."""
        second = int(record.created)
        if second != self._second:
            self._second, self._formatted = second, super().formatTime(record, datefmt)
        return self._formatted

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the name is logging's
        return printable(super().formatMessage(record))

    def formatException(self, ei: ExcInfo) -> str:  # noqa: N802
        return "\n".join(printable(line) for line in super().formatException(ei).split("\n"))


def printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
