"""The worker: it claims emails from the queue, sends several at a time, and recovers the jobs of dead workers."""

import logging

from asynckit.log_limit import OncePerSecond
from common.mail.mailer import Mailer
from common.mail.sender import window
from common.processes.process import stop_requested
from common.settings import Settings
from resque import Queue, Scaling, Worker, namespace_for, open_connections, show
from resque.events import CleanedWorker, Event, Failed, Fired, Paused, Reenqueued, Resized, Started, TooLate
from resque.reports import explain

from .jobs import QUEUE, SendEmail, definitions

CRASH_LIMIT = 5  # a job whose worker has died this many times goes to the failed list
MAX_DELAY = 0.05  # seconds: the loop does little besides sending email, so a longer delay is acceptable

log = logging.getLogger(__name__)


class EventLogger:
    """Logs events; frequent ones at most once a second."""

    def __init__(self) -> None:
        self._often = OncePerSecond(log)

    def __call__(self, event: Event) -> None:
        match event:
            case Started(worker):
                log.info("ready to send, as %s", worker)
            case Reenqueued(_, job, attempt, error, seconds):
                again = f"again in {seconds:.1f} s, after attempt {attempt}"
                self._often.warning("%s %s: %s", show.short(job), again, show.one_line(explain(error)))
            case Failed(_, job, attempt, error):
                name = show.short(job) if job else "an invalid job"
                log.error("gave up %s after %d attempt(s): %s", name, attempt, show.one_line(explain(error)))
            case TooLate(_, job):
                self._often.warning(
                    "%s ended after its lease: another worker runs it, or ran it, a second time", show.short(job)
                )
            case CleanedWorker(worker, outcome):
                log.warning("%s was dead: %s", show.one_line(worker), show.one_line(outcome))
            case Fired(schedule, job, _):
                schedule, queue = show.one_line(schedule), show.one_line(job.queue)
                log.info("the schedule %s is due: %s is in %s", schedule, show.short(job), queue)
            case Paused(reason):
                if reason:
                    log.warning("the queue is paused: %s", show.one_line(reason))
                else:
                    log.info("the queue is resumed")
            case Resized(slots, before, reason, _):
                log.info("%d slots, not %d: %s", slots, before, reason)


async def work(settings: Settings) -> None:
    """Run jobs of the queue until this process is stopped."""
    most = window(settings.emails_per_second)
    namespace = namespace_for(settings.redis)
    async with open_connections(settings.redis) as connections, Mailer(settings, patient=True) as mailer:
        send_email = SendEmail(settings, mailer, Queue(connections.commands, namespace))
        worker = Worker(
            connections,
            [QUEUE],
            definitions(send_email, settings),
            namespace=namespace,
            scaling=Scaling(min(10, most), most, MAX_DELAY),
            lease_seconds=settings.lease_seconds,
            drain_seconds=settings.drain_seconds,
            crash_limit=CRASH_LIMIT,
            per_second=settings.emails_per_second,
            hook=EventLogger(),
        )
        try:
            await worker.run(stop_requested)
        finally:
            await send_email.close()
