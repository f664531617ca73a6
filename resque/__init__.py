"""Resque for Python: a job queue in Redis that Ruby, Node and Python programs share, on asyncio, at least once.

    queue = Queue(redis)
    await queue.enqueue("emailQueue", "sendEmail", [{"to": "alice@example.com"}])

    async with open_connections(url) as connections:
        await Worker(connections, ["emailQueue"], {"sendEmail": Definition(send_email)}).run(stop)

The files, from the interface inwards:

    queue           enqueue, delay, pause, remove            definition      what a job does and how it is retried
    worker          start, work, shut down                   executor        runs one claimed job and settles it
    claiming        the loop that claims jobs                claims          claim, acknowledge, retry, release, fail
    slots           the slots of a worker                    scaling         how many slots (by the loop_delay)
    registration    registered workers and their lease       housekeeping    dead workers, due jobs, invalid jobs
    process_pool    processes for CPU-bound jobs             isolation       runs the code of a job in isolation
    notifier        wakes an idle worker                     watcher         the same for very many queues
    collector       short garbage collections                answers         keys of the wrong type
    events          what happened, passed to a hook          event_log       writes the events to a log
    plugins         code before and after a job              reports         what a job raised, as strings
    schedules       cron: fires recurring jobs               cron            the format of one schedule
    failed          the failed list: retry, remove           delayed         delayed jobs: run now, remove
    observe         workers, counters, charts                states          what observe and queues return
    queues          names, lengths and jobs of queues        figures         the figures of one queue for a page
    items           reads a list page by page                dates           dates of Ruby, Node and Python
    removal         removes waiting and delayed jobs         pausing         keeps a queue paused
    dashboard/      web pages with buttons                   doctor/         checks that the keys are consistent
    commands        the command line                         show            jobs, ages and dates as text
    scripts/        Lua, one state change each               wire            the JSON of Resque
    keys            every key in Redis                       connections     the connections of a worker
"""

from .connections import Connections, namespace_for, open_connections
from .cron import BadSchedule, Schedule
from .definition import Definition, Definitions, Permanent, WaitAndRepeat
from .plugins import Plugin
from .queue import Queue
from .scaling import Scaling
from .schedules import Schedules
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
    "namespace_for",
    "open_connections",
]
