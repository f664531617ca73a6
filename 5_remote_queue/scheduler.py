"""The scheduler: it enqueues jobs at fixed times, as cron does.

Every worker promotes delayed jobs, retries included, and recovers the jobs of dead workers. So without a schedule you
do not need this role. It does the same, so that delayed jobs reach their queues in time when no worker is running.
"""

import logging
from contextlib import suppress

from asynckit.redis_client import CALL_ERRORS, redis_client
from asynckit.tasks import end_tasks, keep_running
from common.processes.process import stop_requested
from common.settings import Settings
from resque import Schedules, namespace_for
from resque.event_log import LogEvents
from resque.housekeeping import Housekeeping
from resque.keys import Keys
from resque.scripts import Scripts

from .schedules import SCHEDULES
from .worker import CRASH_LIMIT

log = logging.getLogger(__name__)


async def schedule(settings: Settings) -> None:
    """Enqueue due jobs until this process is stopped."""
    namespace = namespace_for(settings.redis)
    async with redis_client(settings.redis, key=namespace) as redis:
        scripts, keys, hook = Scripts(redis), Keys(namespace), LogEvents(log)
        housekeeping = Housekeeping(
            redis, scripts, keys, hook, crash_limit=CRASH_LIMIT, lease_seconds=settings.lease_seconds
        )
        schedules = Schedules(redis, scripts, keys, SCHEDULES, hook)
        tasks = [keep_running(housekeeping.run, "housekeeping"), keep_running(schedules.run, "schedules")]
        log.info("ready to fire schedules")
        log.info("stopping (%s)", await stop_requested())
        await end_tasks(tasks)
        with suppress(*CALL_ERRORS):
            await housekeeping.resign()
        log.info("stopped")
