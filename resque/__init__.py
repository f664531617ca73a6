"""Resque for Python: a job queue in Redis that Ruby, Node and Python programs share, on asyncio, at least once.

    queue = Queue(redis)
    await queue.enqueue("emailQueue", "sendEmail", [{"to": "alice@example.com"}])

    async with open_connections(url) as connections:
        await Worker(connections, ["emailQueue"], {"sendEmail": Definition(send_email)}).run(stop)

The files, from the outside to the inside:

    queue           enqueue, plan, look, pause, cancel            definition      what a job does, how it is tried
    worker          takes jobs and runs them side by side         executor       one job, from claim to settlement
    scaling         how many at a time (loop_delay: by what)      plugins         code before and after
    process_pool    processes for what computes                   events          what happens, told to a hook
    foreign         running the code of a job                 reports         what a job raised, as strings
    schedules       cron: jobs that come again and again
    registration    being there, and the lease                    housekeeping    the dead, the delayed, the unreadable
    claims          reserve and settle one job                    notifier        waking who is idle
    failed          what was given up: again, or away             delayed         what is planned: now, or away
    observe         looking at it all (items: one list of it)     dashboard/      the same as pages, with buttons
    doctor/         do the keys still fit together?               show            jobs, ages and dates for people
    scripts/        the Lua that does it, one state change each   wire            the JSON of Resque
    keys            every key in Redis                            connections     three kinds of them
"""

from .connections import Connections, open_connections
from .definition import Definition, Definitions, Permanent, WaitAndRepeat
from .plugins import Plugin
from .queue import Queue
from .scaling import Scaling
from .schedules import BadSchedule, Schedule, Schedules
from .wire import BadJob, Job
from .worker import Worker

__all__ = [
    "BadJob",
    "BadSchedule",
    "Connections",
    "Definition",
    "Definitions",
    "Job",
    "Permanent",
    "Plugin",
    "Queue",
    "Scaling",
    "Schedule",
    "Schedules",
    "WaitAndRepeat",
    "Worker",
    "open_connections",
]
