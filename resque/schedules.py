"""Cron: jobs that are enqueued again and again, when a schedule says so.

Schedules are given in code or stand in the hash `persistent_schedules`, in the format of resque-scheduler (5.0):

    cron             five fields, as in crontab(5); or six, the first of them seconds. The name of a time zone may
                     follow; without one it is UTC, whatever the machine's zone
                     or @hourly, @daily, @weekly, @monthly, @yearly, @noon
    every            "30s", "15m", "15 mins", "1h30m", "2 days", "1w"; or ["1h", {"first_in": "5m"}]. Counted
                     from the moment at which a scheduler first saw it; the first time is one interval later, or after
                     `first_in`
    queue, class     the job's; without a class it is the schedule's name
    args             the job's; what is no list is its only argument
    description      for people; so are `persist` and `parameters`

Each has either `cron` or `every`. A schedule without a queue is enqueued into the queue that its Ruby class names, and
one with `rails_env` or `custom_job_class` depends on the Ruby program: only resque-scheduler can fire these. They are
named in the log and by `doctor`, and left to it. So is a schedule that cannot be read.

By Redis's clock, each due second of a schedule is enqueued once, however many schedulers run. While a resque-scheduler
leads, it fires what stands in Redis, and says in `delayed:last_enqueued_at` when it did; so do we, and what it has
fired is not fired again when it has gone. Schedules given in code are ours alone: a scheduler of ours fires them
whichever program leads. A schedule that was due several times while no scheduler ran is fired once, not for each missed
time.
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

from asynckit.log_limit import REDIS, OncePerSecond
from asynckit.redis_client import describe

from .events import Erred, Fired, Hook, ignore
from .housekeeping import LEADER
from .keys import Keys
from .observe import moment_of
from .scripts import Scripts
from .wire import BadJob, digest, encode, make_job, started_at

LOOK_SECONDS = 0.25
AHEAD_SECONDS = 60  # a moment further ahead comes from a clock that was wrong
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
    """Not a schedule, or not one of ours."""


class When(Protocol):
    """When a schedule is due. All times in unix seconds."""

    def begin(self, now: int) -> int:
        """The mark of a schedule that is new: as if it had been due then."""

    def due(self, mark: int, now: int) -> int | None:
        """The last time after `mark` up to now, if there is one."""


@dataclass(frozen=True)
class Cron:
    fields: str
    zone: tzinfo = UTC

    def begin(self, now: int) -> int:
        return now

    def due(self, mark: int, now: int) -> int | None:
        second = self._last(now if len(self.fields.split()) == 6 else now - now % 60)
        return second if second is not None and mark < second <= now else None

    @lru_cache(maxsize=1000)  # noqa: B019  asked four times a second; what is cached is small, and bounded
    def _last(self, now: int) -> int | None:
        # Backwards from now, so that a year without a scheduler costs no more than a minute. In a zone with summer time
        # as Debian's cron: a time that is skipped comes right after the gap, one that comes twice counts once.
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
    """Raises BadSchedule."""
    words = text.split()
    words = [*NAMED.get(words[0], words[0]).split(), *words[1:]] if words else words
    zone = _zone(words[-1]) if len(words) in (6, 7) else None
    cron = Cron(" ".join(words[:-1] if zone else words), zone or UTC)
    try:
        if next(CronSim(cron.fields, datetime.now(UTC)), None) is None:
            raise BadSchedule(f"{text!r} never comes")
    except CronSimError as error:
        raise BadSchedule(f"cron {text!r}: {error}") from None
    return cron


def read_every(value: Any) -> Every:
    """Raises BadSchedule."""
    text, options = value if isinstance(value, list) and len(value) == 2 else (value, {})
    if not isinstance(options, dict) or options.keys() - {"first_in"}:
        raise BadSchedule(f"every {value!r}: nothing but first_in is known")
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
        raise BadSchedule(f"{text!r} is no time at all")
    return seconds


@dataclass(frozen=True)
class Schedule:
    """When a job is due, and which; either `cron` or `every`, as above. Raises BadSchedule.

    Schedule("nightly", "reportQueue", "sendReport", [{"to": "alice@example.com"}], cron="0 3 * * * Europe/Vienna")
    """

    name: str
    queue: str
    job: str
    """Its class, in Resque's words."""
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
        """Short for when it is due: one that is changed begins anew."""
        return digest(encode([self.cron, self.every]))

    @property
    def members(self) -> dict[str, Any]:
        """As in `persistent_schedules`."""
        when = {"cron": self.cron} if self.cron is not None else {"every": self.every}
        more = {"description": self.description} if self.description else {}
        return when | {"class": self.job, "queue": self.queue, "args": list(self.args)} | more


@lru_cache(maxsize=1000)  # they are read four times a second, and hardly ever change
def read_schedule(name: str, text: bytes | str) -> Schedule:
    """Read an entry of `persistent_schedules`. Raises BadSchedule."""
    try:
        members = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadSchedule(f"not JSON: {error}") from None
    if not isinstance(members, dict):
        raise BadSchedule("not a JSON object")
    if members.get("custom_job_class") == "Resque::Job":  # what resque-scheduler does without it
        members.pop("custom_job_class")
    if unknown := sorted(members.keys() - MEMBERS):
        raise BadSchedule(f"has {', '.join(unknown)}, which is not supported")
    texts = {member: members.get(member) for member in ("cron", "queue", "class", "description")}
    if wrong := [member for member, value in texts.items() if value is not None and not isinstance(value, str)]:
        raise BadSchedule(f"{wrong[0]} is not a text")
    if not texts["queue"]:
        raise BadSchedule("names no queue: only Ruby knows the queue of its class")
    args = members.get("args")
    args = args if isinstance(args, list) else [] if args is None else [args]
    job, queue, description = texts["class"] or name, texts["queue"] or "", texts["description"] or ""
    return Schedule(name, queue, job, args, texts["cron"], members.get("every"), description)


class Schedules:
    """All schedules: `own`, those given in code, and those in Redis, which win over one of the same name, so that it
    can be changed without a restart. Methods raise RedisError when Redis does not answer.
    """

    def __init__(
        self, redis: Redis, scripts: Scripts, keys: Keys, own: Sequence[Schedule] = (), hook: Hook = ignore
    ) -> None:
        self._redis: Any = redis  # its types do not know that answers are bytes here
        self._scripts = scripts
        self._keys = keys
        self._own = {schedule.name: schedule for schedule in own}
        self._hook = hook
        self._named: dict[str, str] = {}  # in the log already
        self._stored: set[str] = set()  # those that stood in Redis when last looked
        self._log = OncePerSecond(log, REDIS)

    async def run(self) -> None:
        """Fire what is due, until cancelled."""
        while True:
            try:
                await self.fire()
            except RedisError as error:
                self._log.warning("schedules: %s", describe(error))
                self._hook(Erred("schedules", error))
            except Exception as error:  # one schedule must not end the others
                log.exception("error in the schedules")
                self._hook(Erred("schedules", error))
            await asyncio.sleep(LOOK_SECONDS)

    async def fire(self) -> int:
        """Enqueue what is due now; how many jobs."""
        schedules = await self.all()
        marks = await self._redis.hgetall(self._keys.cron)
        foreign = await self._last_enqueued()
        now, fired = int((await self._redis.time())[0]), 0
        for schedule in schedules.values():
            try:
                fired += await self._fire(schedule, marks, foreign, now)
            except ResponseError as error:  # what is under the key of its queue is no list
                self._log.warning("the schedule %r: %s", schedule.name, describe(error))
        return fired

    async def _last_enqueued(self) -> Mapping[bytes, bytes]:
        """As resque-scheduler keeps it; nothing if what is under its key is no hash."""
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
        if not is_read or int(second) > max(now + AHEAD_SECONDS, schedule.when.begin(now)):  # the clock was put back
            await self._step(schedule, mark, schedule.when.begin(now), "")
            return False
        last = moment_of(foreign.get(schedule.name.encode())) if schedule.name in self._stored else None
        known = last is not None and last <= now + AHEAD_SECONDS  # a moment further ahead comes from a wrong clock
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
        """By name. What is none of ours is named in the log, once."""
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
        """Put it into Redis, or another in its place; a resque-scheduler that runs is told of it too."""
        keys, members = self._keys, encode(schedule.members)
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hset(keys.cron_schedules, schedule.name, members).sadd(keys.schedules_changed, schedule.name)
            await pipeline.execute()

    async def remove(self, name: str) -> bool:
        """False: there is none of this name in Redis. (What is given in code stays.)"""
        keys = self._keys
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hdel(keys.cron_schedules, name).hdel(keys.cron, name).hdel(keys.last_enqueued, name).sadd(
                keys.schedules_changed, name
            )
            removed, *_ = await pipeline.execute()
        return bool(removed)

    async def _forget(self, names: set[str]) -> None:
        """Schedules that somebody else has removed: should they ever come again, they are new."""
        if names:
            await self._redis.hdel(self._keys.cron, *names)


def _args_of_firing(args: Sequence[Any], due: int) -> Sequence[Any]:
    """An `id` in the arguments of a schedule is made different for each firing: these are different jobs."""
    if not args or not isinstance(args[0], dict) or not args[0].get("id"):
        return args
    return [{**args[0], "id": f"{args[0]['id']}:{due}"}, *args[1:]]
