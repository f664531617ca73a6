"""The dashboard: what waits, what runs, what has failed, and buttons for what can be done about it.

It is an application of its own, to be mounted at `/resque`:

    GET   /resque                    figures and charts              GET   /resque/events    the figures, live
    GET   /resque/queues             lengths, ages, pauses           POST  …/queues/pause, …/queues/resume
    GET   /resque/queue?name=Q       the jobs in one of them
    GET   /resque/delayed            by the time they are due        POST  …/delayed/run, …/delayed/remove
    GET   /resque/failed             the newest first                POST  …/failed/retry, …/failed/remove
    GET   /resque/workers            who does what, for how long     POST  …/failed/retry-all, …/failed/remove-all

Each page is complete without script: forms that post, and an answer that leads back. With script the parts of a page
that have changed are exchanged while it is read. Everything comes from Redis, where anybody may have written it, so all
of it is text to us, cut to what can be shown, and escaped by the template engine; no page reads more than it shows.
"""

from .app import dashboard

__all__ = ["dashboard"]
