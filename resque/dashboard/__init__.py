"""The dashboard: waiting, running, delayed and failed jobs, with buttons to pause, retry, run and remove.

It is an aiohttp application of its own; mount it at `/resque`:

    GET   /resque                    figures and charts              GET   /resque/events    the figures, live
    GET   /resque/queues             lengths, ages, pauses           POST  …/queues/pause, …/queues/resume
    GET   /resque/queue?name=Q       the jobs in one queue
    GET   /resque/delayed            by the time they are due        POST  …/delayed/run, …/delayed/remove
    GET   /resque/failed             the newest first                POST  …/failed/retry, …/failed/remove
    GET   /resque/workers            what each worker does, for how long     POST  …/failed/retry-all,
    …/failed/remove-all

Each page works without JavaScript: forms that post, and a redirect back. With JavaScript, the parts of an open page
that have changed are replaced. All values come from Redis, where any program may have written them, so they are treated
as text: shortened for display and escaped by the template engine. No page reads more than it shows.
"""

from .app import dashboard

__all__ = ["dashboard"]
