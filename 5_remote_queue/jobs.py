"""The one new idea: an email is a job in a queue in Redis. The server enqueues the job, a worker sends the email.

In Resque's terms: queue `emailQueue`, class `sendEmail`, arguments `[{"to", "subject", "text", "id"}]`; the id is the
Message-ID. Ruby and Node programs enqueue and run such jobs, too.
"""

import asyncio
import logging
from contextlib import suppress
from functools import partial
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from asynckit.redis_client import describe
from asynckit.tasks import end_tasks, keep_running
from common.handover import handover_error
from common.mail.emails import BadEmail, Email, email_from_members
from common.mail.errors import CannotAccept, Refused
from common.mail.mailer import Mailer
from common.mail.sender import PatientSender
from common.settings import Settings
from resque import Definition, Definitions, Permanent, Queue
from resque.observe import Observer

QUEUE = "emailQueue"
CLASS = "sendEmail"
RUBY_CLASS = "SendEmail"  # the names of Ruby's classes begin with a capital letter
AGAIN_SECONDS = 0.05  # before repeating a call whose answer was lost
PAUSE_SECONDS = 5.0  # the worker's pause of the queue expires, in case the worker dies

log = logging.getLogger(__name__)


class Jobs:
    """The server's side."""

    def __init__(self, redis: Redis, job_class: str = CLASS, ack_replicas: int = 0, namespace: str = "resque") -> None:
        self._class = job_class
        self.queue = Queue(redis, namespace, ack_replicas=ack_replicas)
        self._observer = Observer(redis, self.queue.keys)

    async def enqueue(self, email: Email) -> None:
        """When this returns, the job is in Redis. Raises CannotAccept if it is not, NoAnswer if it may be.

        After a lost answer the job may or may not be in Redis. The queue remembers ids, so enqueueing it again is safe.
        """
        arguments = [{**email.to_dict(), "id": email.id}]
        try:
            await self.queue.enqueue(QUEUE, self._class, arguments, email.id)
        except RedisError as error:
            await self._enqueue_again(email, arguments, error)

    async def _enqueue_again(self, email: Email, arguments: list[dict[str, str]], first: RedisError) -> None:
        await asyncio.sleep(AGAIN_SECONDS)
        try:
            await self.queue.enqueue(QUEUE, self._class, arguments, email.id)
        except RedisError as error:
            raise handover_error(first, error) from None

    async def check(self) -> None:
        """Raises CannotAccept if no job can be enqueued now."""
        try:
            await self.queue.declare(QUEUE)  # a write that changes nothing: Redis refuses it when it refuses jobs
        except RedisError as error:
            raise CannotAccept(describe(error)) from None

    async def stats(self) -> dict[str, Any]:
        """The figures of /stats, of all servers and workers together. Raises CannotAccept when Redis is unreachable."""
        observer = self._observer
        try:
            [state] = await observer.states([QUEUE])
            totals = await observer.totals()
            delayed, _ = await observer.delayed()
            overdue, overdue_seconds = await observer.overdue()
            ages = [overdue_seconds]
            ages += [age for age in (state.oldest_seconds, await observer.oldest_elsewhere()) if age is not None]
            return {
                "sent": totals["succeeded"],
                "failed": totals["failed"],
                "failed_list": await observer.failed(),
                "retried": totals["retried"],
                "waiting": (state.length or 0) + delayed,
                "in_flight": await observer.in_flight(),
                "oldest_wait_seconds": max(ages),
                "delayed": delayed,
                "next_attempt_seconds": await observer.next_delayed(),
                "overdue": overdue,
                "leader": await observer.leader(),
                "crashed": totals["crashed"],
                "workers": await observer.processes(),
                "paused": state.paused or False,
            }
        except RedisError as error:
            raise CannotAccept(describe(error)) from None


class SendEmail:
    """The worker's side: what a job of the class `sendEmail` does."""

    def __init__(self, settings: Settings, mailer: Mailer, queue: Queue) -> None:
        self._domain = settings.id_domain
        self._queue = queue
        self._sender = PatientSender(mailer, None, self._paused)  # the queue does the throttling
        self._works = asyncio.Event()
        self._pausing: asyncio.Task[None] | None = None

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

    def _paused(self, why: str | None) -> None:
        """A login that fails would fail for every email and every worker, so pause the queue until it works again."""
        self._works.set() if why is None else self._works.clear()
        if why is not None and why.startswith("LoginFailed") and self._pausing is None:
            self._pausing = keep_running(partial(self._keep_paused, why), "keeping the queue paused")

    async def _keep_paused(self, why: str) -> None:
        while not self._works.is_set():
            with suppress(RedisError):
                await self._queue.pause(QUEUE, why, PAUSE_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(PAUSE_SECONDS / 2):
                    await self._works.wait()
        self._pausing = None
        with suppress(RedisError):
            await self._queue.resume(QUEUE, only_timed=True)

    async def close(self) -> None:
        await self._sender.close()
        if self._pausing is not None:
            await end_tasks([self._pausing])


def definitions(send_email: SendEmail, settings: Settings) -> Definitions:
    """The jobs that the workers of this strategy can run. Add your own here."""
    definition = Definition(send_email, attempts=settings.attempts, schedule=settings.retry_pause)
    return {CLASS: definition, RUBY_CLASS: definition}
