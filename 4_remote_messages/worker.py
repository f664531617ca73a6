"""The worker: it subscribes, keeps the emails it receives in memory, and sends them, several at a time."""

import asyncio
import logging
from dataclasses import dataclass

from redis.asyncio import Redis

from asynckit.log_limit import OncePerSecond
from asynckit.redis_client import redis_client
from asynckit.tasks import background, end_tasks, keep_running
from common.mail.emails import BadEmail, Email, email_from_json
from common.mail.errors import CannotAccept, SendError
from common.mail.mailer import Mailer
from common.mail.memory_queue import Entry, MemoryQueue
from common.mail.retry import may_retry
from common.mail.sender import PatientSender, window
from common.processes.process import stop_requested
from common.settings import Settings

from .channel import CHANNEL, Subscription
from .reports import Reports, reply_channel

FIGURES_SECONDS = 5.0  # how often the figures are logged if they have changed

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Received:
    email: Email
    reply_to: str | None


class Worker:
    """`invalid` counts the messages that are not valid emails, `dropped` the emails for which there was no room."""

    def __init__(self, settings: Settings, redis: Redis, mailer: Mailer) -> None:
        self.invalid = self.dropped = 0
        self._domain = settings.id_domain
        self._drain_seconds = settings.drain_seconds
        self._outbox: MemoryQueue[Received] = MemoryQueue(
            self._hand_out, settings.attempts, window(settings.emails_per_second), pause=settings.retry_pause
        )
        self._sender = PatientSender(mailer, settings.emails_per_second)
        self._sending: set[asyncio.Task[None]] = set()
        self._subscription = Subscription(redis, CHANNEL, self._receive)
        self._reports = Reports(redis)
        self._invalid_log = OncePerSecond(log)
        self._dropped_log = OncePerSecond(log)

    async def run(self) -> None:
        """Run until stopped. Then accept nothing new, send the rest within DRAIN_SECONDS, and log what is lost."""
        figures = keep_running(self._log_figures, "logging figures")
        self._outbox.open()
        async with self._subscription:
            log.info("stopping (%s)", await stop_requested())
        await self._outbox.drain(self._drain_seconds)
        self._outbox.log_lost(f"not sent within {self._drain_seconds:g} s of the stop")
        await end_tasks([figures, *self._sending])
        await self._sender.close()
        await self._reports.flush()
        log.info("stopped: %s", self._figures())

    def _receive(self, message: bytes) -> None:
        try:
            email = email_from_json(message, self._domain)
        except BadEmail as error:
            self.invalid += 1
            self._invalid_log.warning("not a valid email (%d so far): %.200s", self.invalid, error)
            return
        received = Received(email, reply_channel(message))
        try:
            self._outbox.put(email.id, received, len(message))
        except CannotAccept as error:  # the caller may have a 202 already, and Redis does not keep the email
            self.dropped += 1
            self._dropped_log.warning("lost %s (%d so far): %s", email.id, self.dropped, error)
            self._reports.report(received.reply_to, email.id, "failed", kind="CannotAccept", reason=str(error))

    def _hand_out(self, entry: Entry[Received]) -> None:
        task = background(self._send(entry.payload), "sending an email")
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, received: Received) -> None:
        caller_waits = received.reply_to is not None
        self._reports.report(received.reply_to, received.email.id, "started")
        try:
            await self._sender.send(received.email, patient=not caller_waits)
        except SendError as error:
            again = may_retry(error) and not caller_waits  # a waiting caller is told now, and may repeat the request
            self._failed(received, type(error).__name__, str(error), again=again)
        except Exception:
            log.exception("a bug kept %s from being sent", received.email.id)
            self._failed(received, "Exception", "a bug; the worker's log has the traceback", again=False)
        else:
            self._outbox.mark_sent(received.email.id)
            self._reports.report(received.reply_to, received.email.id, "sent")

    def _failed(self, received: Received, kind: str, reason: str, *, again: bool) -> None:
        self._outbox.mark_failed(received.email.id, f"{kind}: {reason}", again=again)
        self._reports.report(received.reply_to, received.email.id, "failed", kind=kind, reason=reason)

    async def _log_figures(self) -> None:
        last = self._figures()
        while True:
            await asyncio.sleep(FIGURES_SECONDS)
            if (figures := self._figures()) != last:
                log.info("%s", last := figures)

    def _figures(self) -> str:
        names = ("accepted", "sent", "failed", "retried", "waiting", "in_flight")
        stats = self._outbox.stats()
        figures = {name.replace("_", " "): stats[name] for name in names}
        figures |= {"invalid": self.invalid, "dropped": self.dropped, "subscribed": self._subscription.times}
        return ", ".join(f"{name} {number}" for name, number in figures.items())


async def work(settings: Settings) -> None:
    """Receive emails from the channel and send them, until this process is told to stop."""
    async with redis_client(settings.redis, key=CHANNEL) as redis, Mailer(settings, patient=True) as mailer:
        await Worker(settings, redis, mailer).run()
