"""The scheduler: it enqueues jobs at fixed times, as cron does.

Workers promote delayed jobs and recover the jobs of dead workers. The scheduler does that, too, so that delayed jobs
reach their queues in time when no worker is running.
"""

import logging
from contextlib import suppress

from redis.exceptions import RedisError

from asynckit.redis_client import redis_client
from asynckit.tasks import end_tasks, keep_running
from common.processes.process import stop_requested
from common.settings import Settings
from resque import Schedule, Schedules, namespace_for
from resque.housekeeping import Housekeeping
from resque.keys import Keys
from resque.scripts import Scripts

from .worker import CRASH_LIMIT, EventLogger

SCHEDULES: tuple[Schedule, ...] = ()
"""Add yours here: Schedule("hello", "emailQueue", "sendEmail", [{"to": …, "subject": …, "text": …}], cron="0 8 * * 1")

You can also add them to Redis while the scheduler runs, as with resque-scheduler: `Schedules(…).add`.
"""

log = logging.getLogger(__name__)


async def schedule(settings: Settings) -> None:
    """Enqueue due jobs until this process is stopped."""
    namespace = namespace_for(settings.redis)
    async with redis_client(settings.redis, key=namespace) as redis:
        scripts, keys, hook = Scripts(redis), Keys(namespace), EventLogger()
        housekeeping = Housekeeping(
            redis, scripts, keys, hook, crash_limit=CRASH_LIMIT, lease_seconds=settings.lease_seconds
        )
        schedules = Schedules(redis, scripts, keys, SCHEDULES, hook)
        tasks = [keep_running(housekeeping.run, "housekeeping"), keep_running(schedules.run, "schedules")]
        log.info("ready to fire schedules")
        log.info("stopping (%s)", await stop_requested())
        await end_tasks(tasks)
        with suppress(RedisError):
            await housekeeping.resign()
        log.info("stopped")
