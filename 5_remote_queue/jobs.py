"""The one new idea: an email is a job in a queue in Redis. The server enqueues the job, a worker sends the email.

In Resque's terms: queue `emailQueue`, class `sendEmail`, arguments `[{"to", "subject", "text", "id"}]`; the id is the
Message-ID. Ruby and Node programs enqueue and run such jobs, too.
"""

import asyncio
import logging
from typing import Any

from redis.asyncio import Redis

from asynckit.redis_client import CALL_ERRORS, describe
from common.handover import handover_error
from common.mail.emails import BadEmail, Email, email_from_members
from common.mail.errors import CannotAccept, LoginFailed, Refused, SendError
from common.mail.mailer import Mailer
from common.mail.sender import PatientSender
from common.settings import Settings
from resque import Definition, Definitions, Permanent, Queue
from resque.figures import figures
from resque.pausing import KeptPause

QUEUE = "emailQueue"
CLASS = "sendEmail"
RUBY_CLASS = "SendEmail"  # the names of Ruby's classes begin with a capital letter
AGAIN_SECONDS = 0.05  # before repeating a call whose answer was lost

log = logging.getLogger(__name__)  # for your own jobs


class Jobs:
    """The server's side."""

    def __init__(self, redis: Redis, job_class: str = CLASS, ack_replicas: int = 0, namespace: str = "resque") -> None:
        self._class = job_class
        self.queue = Queue(redis, namespace, ack_replicas=ack_replicas)

    async def enqueue(self, email: Email) -> None:
        """When this returns, the job is in Redis. Raises CannotAccept if it is not, NoAnswer if it may be.

        After a lost answer the job may or may not be in Redis. The queue remembers ids, so enqueueing it again is safe.
        """
        try:
            await self.queue.enqueue(QUEUE, self._class, [email.to_dict()], email.id)
        except CALL_ERRORS as error:
            await self._enqueue_again(email, error)

    async def _enqueue_again(self, email: Email, first: Exception) -> None:
        await asyncio.sleep(AGAIN_SECONDS)
        try:
            await self.queue.enqueue(QUEUE, self._class, [email.to_dict()], email.id)
        except CALL_ERRORS as error:
            raise handover_error(first, error) from None

    async def check(self) -> None:
        """Raises CannotAccept if no job can be enqueued now."""
        try:
            await self.queue.declare(QUEUE)  # a write that changes nothing: Redis refuses it when it refuses jobs
        except CALL_ERRORS as error:
            raise CannotAccept(describe(error)) from None

    async def stats(self) -> dict[str, Any]:
        """The figures of /stats, of all servers and workers together. Raises CannotAccept when Redis is unreachable."""
        try:
            found = await figures(self.queue, QUEUE)
        except CALL_ERRORS as error:
            raise CannotAccept(describe(error)) from None
        return {"sent": found.pop("succeeded"), **found}


class SendEmail:
    """The worker's side: what a job of the class `sendEmail` does."""

    def __init__(self, settings: Settings, mailer: Mailer, queue: Queue) -> None:
        self._domain = settings.id_domain
        self._pause = KeptPause(queue, QUEUE)
        self._sender = PatientSender(mailer, None, self._on_pause)  # the queue does the throttling

    async def __call__(self, arguments: object) -> None:
        """Raises Permanent for an invalid email and for one that the mail server refuses for good; else a SendError.

        An outage raises nothing: the email waits here, under its lease, and no attempt is counted.
        """
        try:
            email = email_from_members(arguments, self._domain)
        except BadEmail as error:
            raise Permanent(str(error)) from error
        try:
            await self._sender.send(email)
        except Refused as error:
            raise Permanent(str(error)) from error

    def _on_pause(self, error: SendError | None) -> None:
        """A login that fails would fail for every email and every worker, so pause the queue until it works again."""
        if error is None:
            self._pause.end()
        elif isinstance(error, LoginFailed):
            self._pause.begin(f"LoginFailed: {error}")

    async def close(self) -> None:
        await self._sender.close()
        await self._pause.close()


def definitions(send_email: SendEmail, settings: Settings) -> Definitions:
    """The jobs that the workers of this strategy can run. Add your own here."""
    definition = Definition(send_email, attempts=settings.attempts, schedule=settings.retry_pause)
    return {CLASS: definition, RUBY_CLASS: definition}
