"""Cron: fires schedules. cron.py describes the format of one schedule.

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
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from asynckit.bytes_redis import bytes_redis, redis_time
from asynckit.log_limit import REDIS, OncePerSecond
from asynckit.redis_client import CALL_ERRORS, describe

from .cron import BadSchedule, NeverDue, Schedule, read_schedule
from .dates import moment_of
from .events import Erred, Fired, Hook, ignore
from .housekeeping import LEADER
from .keys import Keys
from .scripts import Scripts
from .wire import encode, make_job, started_at

LOOK_SECONDS = 0.25
AHEAD_SECONDS = 60  # a time further in the future comes from a wrong clock

log = logging.getLogger(__name__)


class Schedules:
    """All schedules: `own`, those given in code, and those in Redis. A schedule in Redis replaces one in code of the
    same name, so that you can change it without a restart. Methods raise RedisError when Redis does not answer.
    """

    def __init__(
        self, redis: Redis, scripts: Scripts, keys: Keys, own: Sequence[Schedule] = (), hook: Hook = ignore
    ) -> None:
        self._redis = bytes_redis(redis)
        self._scripts = scripts
        self._keys = keys
        self._own = {schedule.name: schedule for schedule in own}
        self._hook = hook
        self._named: dict[str, str] = {}  # already logged
        self._stored: set[str] = set()  # the names that were in Redis at the last read
        self._log = OncePerSecond(log, REDIS)

    async def run(self) -> None:
        """Fire due schedules until cancelled."""
        while True:
            try:
                await self.fire()
            except CALL_ERRORS as error:
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
        others = await self._last_enqueued()
        now, fired = int(await redis_time(self._redis)), 0
        for schedule in schedules.values():
            try:
                fired += await self._fire(schedule, marks, others, now)
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
        self, schedule: Schedule, marks: Mapping[bytes, bytes], others: Mapping[bytes, bytes], now: int
    ) -> bool:
        mark = marks.get(schedule.name.encode(), b"")
        second, _, kind = mark.decode(errors="replace").partition(" ")
        is_read = kind == schedule.kind and re.fullmatch(r"-?\d{1,15}", second, re.ASCII)
        if not is_read or int(second) > max(now + AHEAD_SECONDS, schedule.when.begin(now)):  # the clock was set back
            await self._step(schedule, mark, schedule.when.begin(now), "")
            return False
        fired = others.get(schedule.name.encode(), b"")
        last = moment_of(fired) if schedule.name in self._stored else None
        known = last is not None and last <= now + AHEAD_SECONDS  # a later time comes from a wrong clock
        due = schedule.when.due(max(int(second), int(last)) if known and last else int(second), now)
        if due is None:
            return False
        job = make_job(schedule.queue, schedule.job, _args_of_firing(schedule.args, due))
        if not await self._step(schedule, mark, due, job.raw, fired):
            return False
        self._hook(Fired(schedule.name, job, due))
        return True

    async def _step(self, schedule: Schedule, mark: bytes, second: int, raw: str, fired: bytes = b"") -> bool:
        keys = self._keys
        names = [keys.ruby_lock, keys.last_enqueued, keys.cron, keys.queues, keys.queue(schedule.queue), keys.guarded]
        stored = int(schedule.name in self._stored)
        new_mark = f"{second} {schedule.kind}"
        arguments = (LEADER, schedule.name, mark, new_mark, schedule.queue, raw, started_at(second), stored, fired)
        return bool(await self._scripts("fire", names, *arguments))

    async def all(self) -> dict[str, Schedule]:
        """All schedules by name, without those that are never due. One that only resque-scheduler can fire is logged
        once.
        """
        found = await self._redis.hgetall(self._keys.cron_schedules)
        schedules, named = dict(self._own), {}
        for name, text in ((name.decode(errors="replace"), text) for name, text in sorted(found.items())):
            try:
                schedules[name] = read_schedule(name, text)
            except NeverDue:
                schedules.pop(name, None)
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
