"""One schedule: its format, and when it is due.

Schedules are given in code or stored in the hash `persistent_schedules`, in the format of resque-scheduler (5.0):

    cron             five fields, as in crontab(5); or six, of which the first is seconds. The name of a time zone may
                     follow; the default is UTC, not the machine's zone
                     or @hourly, @daily, @weekly, @monthly, @yearly, @noon
    every            "30s", "15m", "15 mins", "1h30m", "1 hour and 30 minutes", "0.5h", "2 days", "1w", "90" (seconds),
                     each a whole number of seconds in all; or ["1h", {"first_in": "5m"}]. It counts
                     from the time at which a scheduler first read it; it is first due one interval later, or after
                     `first_in`. If there is a `cron`, `every` is ignored
    queue, class     of the job; the default class is the schedule's name
    args             of the job; a value that is not a list is its only argument; null and false mean no arguments
    description      for readers; `persist` and `parameters` are ignored, too. A member whose value is null or false is
                     ignored like a missing one

A schedule whose `cron` and `every` are both missing or empty is never due: in the pages of resque-scheduler it is a
button that enqueues the job. All this is as in resque-scheduler, with one exception: it documents the schedule's name
as the default class, but for an entry in Redis without a class it enqueues Ruby's class `Object`, which no worker can
run. We use the name. Only resque-scheduler can fire a schedule without a queue, because only Ruby knows the queue of
its class, and one with `rails_env`, `env` or `custom_job_class`, which depends on the Ruby program. The log and
`doctor` name these schedules and those that cannot be read; our scheduler skips them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from functools import lru_cache
from typing import Any, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import orjson
from cronsim import CronSim, CronSimError

from .wire import BadJob, digest, encode, make_job

MEMBERS = {"cron", "every", "queue", "class", "args", "description", "persist", "parameters"}
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "M": 30 * 86400, "y": 365 * 86400}  # as Ruby's fugit
NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@noon": "0 12 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

# As Ruby's fugit reads it: `M` is a month and `m` a minute; the case of the other units does not matter.
_UNIT = (
    r"(?i:y(?:ears?)?)|M|mon(?:ths?)?|(?i:w(?:eeks?)?|d(?:ays?)?|h(?:ours?)?)|m(?:in(?:ute)?s?)?"
    r"|(?i:s(?:ec(?:ond)?s?)?)"
)
_PART = rf"(\d{{1,9}}(?:\.\d{{0,9}})?|\.\d{{1,9}})(?:\s*({_UNIT})(?!(?!and)[A-Za-z])|\s*$)"
_DURATION = re.compile(rf"(?:(?:[\s,]|and)*{_PART})+\s*", re.ASCII)


class BadSchedule(ValueError):
    """Not a valid schedule, or one that only resque-scheduler can fire."""


class NeverDue(BadSchedule):
    """It has neither `cron` nor `every`, so no scheduler fires it."""


class When(Protocol):
    """When a schedule is due. All times in unix seconds."""

    def begin(self, now: int) -> int:
        """The mark of a new schedule: the second at which it counts as last due."""

    def due(self, mark: int, now: int) -> int | None:
        """The last due second after `mark`, up to `now`; None if there is none."""


@dataclass(frozen=True)
class Cron:
    fields: str
    zone: tzinfo = UTC

    def begin(self, now: int) -> int:
        return now

    def due(self, mark: int, now: int) -> int | None:
        second = self._last(now if len(self.fields.split()) == 6 else now - now % 60)
        return second if second is not None and mark < second <= now else None

    @lru_cache(maxsize=1000)  # noqa: B019  called four times a second; the cache is small and bounded
    def _last(self, now: int) -> int | None:
        # Backwards from now, so that a year without a scheduler costs no more than a minute. Daylight saving time works
        # as in Debian's cron: a skipped time is due right after the gap, a repeated time is due once.
        found = next(CronSim(self.fields, datetime.fromtimestamp(now + 1, self.zone), reverse=True), None)
        return int(found.timestamp()) if found else None


@dataclass(frozen=True)
class Every:
    seconds: int
    first_in: int

    def begin(self, now: int) -> int:
        return now + self.first_in - self.seconds

    def due(self, mark: int, now: int) -> int | None:
        intervals = (now - mark) // self.seconds
        return mark + intervals * self.seconds if intervals > 0 else None


@lru_cache(maxsize=1000)
def read_cron(text: str) -> Cron:
    """Parse a cron expression. Raises BadSchedule."""
    words = text.split()
    words = [*NAMED.get(words[0], words[0]).split(), *words[1:]] if words else words
    zone = _zone(words[-1]) if len(words) in (6, 7) else None
    cron = Cron(" ".join(words[:-1] if zone else words), zone or UTC)
    try:
        if next(CronSim(cron.fields, datetime.now(UTC)), None) is None:
            raise BadSchedule(f"{text!r} is never due")
    except CronSimError as error:
        raise BadSchedule(f"cron {text!r}: {error}") from None
    return cron


def read_every(value: Any) -> Every:
    """Parse the value of `every`. Raises BadSchedule."""
    if isinstance(value, list) and value and (len(value) > 2 or not isinstance(value[-1], dict)):
        value = value[0]  # resque-scheduler ignores the rest
    text, options = value if isinstance(value, list) and len(value) == 2 else (value, {})
    if not isinstance(options, dict) or options.keys() - {"first_in"}:
        raise BadSchedule(f"every {value!r}: the only known option is first_in")
    seconds = _seconds(text)
    return Every(seconds, _seconds(options["first_in"]) if options else seconds)


def _zone(word: str) -> tzinfo | None:
    try:
        return ZoneInfo(word)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _seconds(text: Any) -> int:
    if not isinstance(text, str) or not _DURATION.fullmatch(text):
        raise BadSchedule(f"{text!r} is not a duration such as 30s, 5m or 1h30m")
    seconds = sum(Decimal(number) * _unit_seconds(unit) for number, unit in re.findall(_PART, text))
    if seconds == 0:
        raise BadSchedule(f"{text!r} is zero")
    if seconds != int(seconds):
        raise BadSchedule(f"{text!r} is not a whole number of seconds")
    return int(seconds)


def _unit_seconds(unit: str) -> int:
    return UNITS["M" if unit == "M" or unit.startswith("mon") else unit[:1].lower() or "s"]


@dataclass(frozen=True)
class Schedule:
    """A job and when it is due: by `cron` or by `every`, in the format above. Raises BadSchedule.

    Schedule("nightly", "reportQueue", "sendReport", [{"to": "alice@example.com"}], cron="0 3 * * * Europe/Vienna")
    """

    name: str
    queue: str
    job: str
    """Its class in Resque."""
    args: Sequence[Any] = ()
    cron: str | None = None
    every: str | Sequence[Any] | None = None
    description: str = ""
    when: When = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if (self.cron is None) == (self.every is None):
            raise BadSchedule("needs either cron or every")
        if not self.name:
            raise BadSchedule("needs a name")
        try:
            make_job(self.queue, self.job, self.args)
        except BadJob as error:
            raise BadSchedule(str(error)) from None
        when = read_cron(self.cron) if self.cron is not None else read_every(self.every)
        object.__setattr__(self, "when", when)

    @property
    def kind(self) -> str:
        """A digest of when it is due. A schedule whose digest changes is treated as new."""
        return digest(encode([self.cron, self.every]))

    @property
    def members(self) -> dict[str, Any]:
        """The JSON members of its entry in `persistent_schedules`."""
        when = {"cron": self.cron} if self.cron is not None else {"every": self.every}
        more = {"description": self.description} if self.description else {}
        return when | {"class": self.job, "queue": self.queue, "args": list(self.args)} | more


@lru_cache(maxsize=1000)  # entries are read four times a second and rarely change
def read_schedule(name: str, text: bytes | str) -> Schedule:
    """Read an entry of `persistent_schedules`. Raises BadSchedule."""
    try:
        members = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadSchedule(f"not JSON: {error}") from None
    if not isinstance(members, dict):
        raise BadSchedule("not a JSON object")
    if members.get("custom_job_class") == "Resque::Job":  # the default of resque-scheduler
        members.pop("custom_job_class")
    if unknown := sorted(name for name in members.keys() - MEMBERS if members[name] not in (None, False)):
        raise BadSchedule(f"has {', '.join(unknown)}, which is not supported")
    texts = {member: members.get(member) for member in ("cron", "queue", "class", "description")}
    if wrong := [member for member, value in texts.items() if value is not None and not isinstance(value, str)]:
        raise BadSchedule(f"{wrong[0]} is not a string")
    if not texts["cron"] and not members.get("every"):
        raise NeverDue("has neither cron nor every")
    if not texts["queue"]:
        raise BadSchedule("names no queue: only Ruby knows the queue of its class")
    args = members.get("args")
    args = args if isinstance(args, list) else [] if args is None or args is False else [args]
    job, queue, description = texts["class"] or name, texts["queue"] or "", texts["description"] or ""
    every = None if texts["cron"] else members["every"]
    return Schedule(name, queue, job, args, texts["cron"] or None, every, description)
