"""Cron: jobs that a schedule enqueues repeatedly.

Schedules are given in code or stored in the hash `persistent_schedules`, in the format of resque-scheduler (5.0):

    cron             five fields, as in crontab(5); or six, of which the first is seconds. The name of a time zone may
                     follow; the default is UTC, not the machine's zone
                     or @hourly, @daily, @weekly, @monthly, @yearly, @noon
    every            "30s", "15m", "15 mins", "1h30m", "2 days", "1w"; or ["1h", {"first_in": "5m"}]. It counts
                     from the time at which a scheduler first read it; it is first due one interval later, or after
                     `first_in`
    queue, class     of the job; the default class is the schedule's name
    args             of the job; a value that is not a list is its only argument
    description      for readers; `persist` and `parameters` are ignored, too

Each schedule has either `cron` or `every`. Only resque-scheduler can fire a schedule without a queue, because only Ruby
knows the queue of its class, and one with `rails_env` or `custom_job_class`, which depends on the Ruby program. The log
and `doctor` name these schedules and those that cannot be read; our scheduler skips them.

By Redis's clock, each due second of a schedule is enqueued once, however many schedulers run. While a resque-scheduler
is the leader, it fires the schedules in Redis and records the time in `delayed:last_enqueued_at`. Our scheduler writes
and reads the same hash, so it does not fire again what a resque-scheduler has fired. Our scheduler alone fires
schedules given in code, whichever program is the leader. A schedule that was due several times while no scheduler ran
is fired once, not once for each missed time.
"""

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Any, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import orjson
from cronsim import CronSim, CronSimError
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from asynckit.log_limit import OncePerSecond
from asynckit.redis_client import describe

from .events import Erred, Fired, Hook, ignore
from .housekeeping import LEADER
from .keys import Keys
from .observe import moment_of
from .scripts import Scripts
from .wire import BadJob, digest, encode, make_job, started_at

LOOK_SECONDS = 0.25
AHEAD_SECONDS = 60  # a time further in the future comes from a wrong clock
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

_PART = (
    r"(\d{1,9})\s*"
    r"(y(?:ears?)?|mon(?:ths?)?|M|w(?:eeks?)?|d(?:ays?)?|h(?:ours?)?|m(?:in(?:ute)?s?)?|s(?:ec(?:ond)?s?)?)(?![A-Za-z])"
)
_DURATION = re.compile(rf"(?:\s*{_PART})+\s*", re.ASCII)

log = logging.getLogger(__name__)


class BadSchedule(ValueError):
    """Not a valid schedule, or one that only resque-scheduler can fire."""


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
    parts = re.findall(_PART, text)
    seconds = sum(int(number) * UNITS["M" if unit.startswith("mon") else unit[0]] for number, unit in parts)
    if seconds == 0:
        raise BadSchedule(f"{text!r} is zero")
    return seconds


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
    if unknown := sorted(members.keys() - MEMBERS):
        raise BadSchedule(f"has {', '.join(unknown)}, which is not supported")
    texts = {member: members.get(member) for member in ("cron", "queue", "class", "description")}
    if wrong := [member for member, value in texts.items() if value is not None and not isinstance(value, str)]:
        raise BadSchedule(f"{wrong[0]} is not a string")
    if not texts["queue"]:
        raise BadSchedule("names no queue: only Ruby knows the queue of its class")
    args = members.get("args")
    args = args if isinstance(args, list) else [] if args is None else [args]
    job, queue, description = texts["class"] or name, texts["queue"] or "", texts["description"] or ""
    return Schedule(name, queue, job, args, texts["cron"], members.get("every"), description)


class Schedules:
    """All schedules: `own`, those given in code, and those in Redis. A schedule in Redis replaces one in code of the
    same name, so that you can change it without a restart. Methods raise RedisError when Redis does not answer.
    """

    def __init__(
        self, redis: Redis, scripts: Scripts, keys: Keys, own: Sequence[Schedule] = (), hook: Hook = ignore
    ) -> None:
        self._redis: Any = redis  # its types say that answers may be str
        self._scripts = scripts
        self._keys = keys
        self._own = {schedule.name: schedule for schedule in own}
        self._hook = hook
        self._named: dict[str, str] = {}  # already logged
        self._stored: set[str] = set()  # the names that were in Redis at the last read
        self._log = OncePerSecond(log)

    async def run(self) -> None:
        """Fire due schedules until cancelled."""
        while True:
            try:
                await self.fire()
            except RedisError as error:
                self._log.warning("schedules: %s", describe(error))
                self._hook(Erred("schedules", error))
            except Exception as error:  # one schedule must not stop the others
                log.exception("error in the schedules")
                self._hook(Erred("schedules", error))
            await asyncio.sleep(LOOK_SECONDS)

    async def fire(self) -> int:
        """Enqueue the jobs that are due now; returns how many."""
        schedules = await self.all()
        marks = await self._redis.hgetall(self._keys.cron)
        foreign = await self._last_enqueued()
        now, fired = int((await self._redis.time())[0]), 0
        for schedule in schedules.values():
            try:
                fired += await self._fire(schedule, marks, foreign, now)
            except ResponseError as error:  # the key of its queue is not a list
                self._log.warning("the schedule %r: %s", schedule.name, describe(error))
        return fired

    async def _last_enqueued(self) -> Mapping[bytes, bytes]:
        """When each schedule was last enqueued, as resque-scheduler records it; {} if the key is not a hash."""
        try:
            return dict(await self._redis.hgetall(self._keys.last_enqueued))
        except ResponseError:
            return {}

    async def _fire(
        self, schedule: Schedule, marks: Mapping[bytes, bytes], foreign: Mapping[bytes, bytes], now: int
    ) -> bool:
        mark = marks.get(schedule.name.encode(), b"")
        second, _, kind = mark.decode(errors="replace").partition(" ")
        is_read = kind == schedule.kind and re.fullmatch(r"-?\d{1,15}", second, re.ASCII)
        if not is_read or int(second) > max(now + AHEAD_SECONDS, schedule.when.begin(now)):  # the clock was set back
            await self._step(schedule, mark, schedule.when.begin(now), "")
            return False
        last = moment_of(foreign.get(schedule.name.encode())) if schedule.name in self._stored else None
        known = (
            last is not None and last <= now + AHEAD_SECONDS
        )  # a time further in the future comes from a wrong clock
        due = schedule.when.due(max(int(second), int(last)) if known and last else int(second), now)
        if due is None:
            return False
        job = make_job(schedule.queue, schedule.job, _args_of_firing(schedule.args, due))
        if not await self._step(schedule, mark, due, job.raw):
            return False
        self._hook(Fired(schedule.name, job, due))
        return True

    async def _step(self, schedule: Schedule, mark: bytes, second: int, raw: str) -> bool:
        keys = self._keys
        names = [keys.ruby_lock, keys.last_enqueued, keys.cron, keys.queues, keys.queue(schedule.queue)]
        stored = int(schedule.name in self._stored)
        new_mark = f"{second} {schedule.kind}"
        arguments = (LEADER, schedule.name, mark, new_mark, schedule.queue, raw, started_at(second), stored)
        return bool(await self._scripts("fire", names, *arguments))

    async def all(self) -> dict[str, Schedule]:
        """All schedules by name. One that only resque-scheduler can fire is logged once."""
        found = await self._redis.hgetall(self._keys.cron_schedules)
        schedules, named = dict(self._own), {}
        for name, text in ((name.decode(errors="replace"), text) for name, text in sorted(found.items())):
            try:
                schedules[name] = read_schedule(name, text)
            except BadSchedule as error:
                schedules.pop(name, None)
                named[name] = str(error)
                if self._named.get(name) != named[name]:
                    log.warning("the schedule %r is left to resque-scheduler: %s", name, error)
        self._named = named
        await self._forget(self._stored - schedules.keys())
        self._stored = {name.decode(errors="replace") for name in found} & schedules.keys()
        return schedules

    async def add(self, schedule: Schedule) -> None:
        """Add or replace a schedule in Redis; a running resque-scheduler is notified, too."""
        keys, members = self._keys, encode(schedule.members)
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hset(keys.cron_schedules, schedule.name, members).sadd(keys.schedules_changed, schedule.name)
            await pipeline.execute()

    async def remove(self, name: str) -> bool:
        """Remove a schedule from Redis. False: it has none of this name. (Schedules given in code stay.)"""
        keys = self._keys
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hdel(keys.cron_schedules, name).hdel(keys.cron, name).hdel(keys.last_enqueued, name).sadd(
                keys.schedules_changed, name
            )
            removed, *_ = await pipeline.execute()
        return bool(removed)

    async def _forget(self, names: set[str]) -> None:
        """Delete the marks of schedules that another program has removed: if added again, they are new."""
        if names:
            await self._redis.hdel(self._keys.cron, *names)


def _args_of_firing(args: Sequence[Any], due: int) -> Sequence[Any]:
    """The arguments with a different `id` for each firing, because each firing is a different job."""
    if not args or not isinstance(args[0], dict) or not args[0].get("id"):
        return args
    return [{**args[0], "id": f"{args[0]['id']}:{due}"}, *args[1:]]
