"""Jobs, ages and dates as text for a page or a terminal."""

import re
from datetime import UTC, datetime
from typing import Any

import orjson

from .wire import Job

ACTIVE_JOB = "ActiveJob::QueueAdapters::ResqueAdapter::JobWrapper"

_WHITE = re.compile(r"[\t-\r\x85\u2028\u2029]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def title(job: Job) -> str:
    """The class; for a job of Rails (ActiveJob), the class inside its wrapper."""
    name = _wrapped(job).get("job_class")
    return name if isinstance(name, str) and name else job.name


def arguments(job: Job) -> str:
    """As compact JSON."""
    return compact(_wrapped(job).get("arguments", job.args))


def short(job: Job) -> str:
    """For a log line: the job's id, or else its class and arguments."""
    return one_line(job.id or f"{title(job)} {arguments(job)}", 100)


def _wrapped(job: Job) -> dict[str, Any]:
    first = job.args[0] if job.name == ACTIVE_JOB and job.args else None
    return first if isinstance(first, dict) else {}


def compact(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # orjson reads deeper nesting than it writes
        return "nested too deeply to show"


def clip(text: str, most: int = 300) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def one_line(text: str, most: int = 300) -> str:
    """For a terminal: line breaks and tabs become spaces, other control and direction characters become "?"."""
    return clip(_CONTROL.sub("?", _WHITE.sub(" ", text[: most + 1])), most)


def bytes_as_text(data: bytes) -> str:
    return data.decode(errors="backslashreplace")


def duration(seconds: float | None) -> str:
    """ "1.2 s", "3 min 20 s", "2 d 4 h"; "unknown" for None."""
    if seconds is None or not 0 <= seconds < 1e10:  # a date in the future, or not a number
        return "unknown"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400:,} d {whole % 86400 // 3600} h"


def moment(seconds: float | None) -> str:
    """A date in UTC; the number itself if it is outside the range of dates."""
    if seconds is None:
        return "unknown"
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.15g}"


def size(number: int) -> str:
    """A number of bytes with its unit."""
    for unit, factor in (("MB", 1e6), ("kB", 1e3)):
        if number >= factor:
            return f"{number / factor:.1f} {unit}"
    return f"{number} bytes"
