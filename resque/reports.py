"""What a job raised, as strings, which can always be stored and sent.

The code of a job may raise an exception that cannot be shown: its `__str__` raises, or its message is a gigabyte long.
The failed list, the log and the pipe of a process use the report instead of the exception.
"""

import traceback
from typing import NamedTuple

from asynckit.error_text import MOST_TEXT, class_of, text_of

from .definition import Permanent, WaitAndRepeat

MOST_LINES = 200


class Report(NamedTuple):
    kind: str
    """The name of its class, or of the class of its cause if it is a Permanent with a cause."""
    text: str
    backtrace: list[str]
    permanent: bool = False
    wait: bool = False
    """Whether it was a WaitAndRepeat."""

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}" if self.text else self.kind


class RaisedInProcess(Exception):
    """A job in the process pool raised an exception: the report that its process made."""

    def __init__(self, report: Report) -> None:
        super().__init__(str(report))
        self.report = report


def report_of(error: BaseException) -> Report:
    """Make a report. Never raises, whatever the class of the error does."""
    if type(error) is RaisedInProcess:
        return error.report
    permanent = issubclass(type(error), Permanent)
    shown = error
    if permanent and isinstance(cause := _cause(error), BaseException):
        shown = cause
    return Report(class_of(shown), text_of(error), _backtrace(error), permanent, issubclass(type(error), WaitAndRepeat))


def explain(error: BaseException) -> str:
    """ "ValueError: not today", for a log."""
    return str(report_of(error))


def _cause(error: BaseException) -> object:
    try:
        return error.__cause__
    except BaseException:
        return None


def _backtrace(error: BaseException) -> list[str]:
    try:
        parts = traceback.format_tb(error.__traceback__)
        return [line[:MOST_TEXT] for part in parts for line in part.rstrip().split("\n")][-MOST_LINES:]
    except BaseException:
        return []
