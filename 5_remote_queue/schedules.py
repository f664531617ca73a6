"""Jobs at fixed times, as cron has them. `make run-5` starts the scheduler if there is one here.

    Schedule("hello", "emailQueue", "sendEmail", [{"to": …, "subject": …, "text": …}], cron="0 8 * * 1")

Other programs can add schedules to Redis while the scheduler runs, as with resque-scheduler: `Schedules(…).add`.
"""

from resque import Schedule

SCHEDULES: tuple[Schedule, ...] = ()
