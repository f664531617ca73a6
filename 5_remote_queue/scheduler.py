"""The scheduler: it enqueues what is due at a time of the clock, again and again, as cron does.

Workers alone do the rest: they promote delayed jobs and bring back what the dead left. A scheduler does that too, so
that delayed jobs come in time when no worker runs.
"""

import logging
from contextlib import suppress

from redis.exceptions import RedisError

from asynckit.redis_client import redis_client
from asynckit.tasks import end_tasks, keep_running
from common.processes.process import stop_requested
from common.settings import Settings
from resque import Schedule, Schedules
from resque.housekeeping import Housekeeping
from resque.keys import Keys
from resque.scripts import Scripts

from .worker import CRASH_LIMIT, EventLogger

SCHEDULES: tuple[Schedule, ...] = ()
"""Yours join here: Schedule("hello", "emailQueue", "sendEmail", [{"to": …, "subject": …, "text": …}], cron="0 8 * * 1")

Or put them into Redis while it runs, as resque-scheduler does: `Schedules(…).add`.
"""

log = logging.getLogger(__name__)


async def schedule(settings: Settings) -> None:
    """Enqueue what is due until this process is asked to stop."""
    async with redis_client(settings.redis) as redis:
        scripts, keys, hook = Scripts(redis), Keys(), EventLogger()
        housekeeping = Housekeeping(
            redis, scripts, keys, hook, crash_limit=CRASH_LIMIT, lease_seconds=settings.lease_seconds
        )
        schedules = Schedules(redis, scripts, keys, SCHEDULES, hook)
        tasks = [keep_running(housekeeping.run, "housekeeping"), keep_running(schedules.run, "schedules")]
        log.info("keeping the schedule")
        log.info("stopping (%s)", await stop_requested())
        await end_tasks(tasks)
        with suppress(RedisError):
            await housekeeping.resign()
        log.info("stopped")
