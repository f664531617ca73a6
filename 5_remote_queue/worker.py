"""The worker: it claims emails from the queue, sends several at a time, and recovers the jobs of dead workers."""

import logging

from common.mail.mailer import Mailer
from common.mail.sender import window
from common.processes.process import stop_requested
from common.settings import Settings
from resque import Queue, Scaling, Worker, namespace_for, open_connections
from resque.event_log import LogEvents

from .jobs import QUEUE, SendEmail, definitions

CRASH_LIMIT = 5  # a job whose worker has died this many times goes to the failed list
MAX_DELAY = 0.05  # seconds: the loop does little besides sending email, so a longer delay is acceptable

log = logging.getLogger(__name__)


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
            hook=LogEvents(log, "ready to send"),
        )
        try:
            await worker.run(stop_requested)
        finally:
            await send_email.close()
