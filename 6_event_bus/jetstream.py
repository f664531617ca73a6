"""LOG=jetstream: the same server and worker on NATS JetStream, without Redis. This module needs nats-py."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from common.mail.mailer import Mailer
from common.settings import Settings, exit_with_usage_error
from eventlog.errors import LogError
from eventlog.events import BadEvent, Event
from eventlog.interface import Counted, EventLog
from eventlog.jetstream import JetStreamLog
from eventlog.nats_beats import Beats
from eventlog.nats_client import Nats
from eventlog.nats_connect import Misconfigured

from .handlers import AUDIT_COUNTS_SECONDS, EMAIL_REQUESTED, EmailHandler, domain_of, hour_of
from .worker import run_handlers

AUDIT = "eventlog_audit"
AUDIT_IDS_SECONDS = 2 * 3600  # how long a repeated event is recognised; the server keeps these ids in memory

log = logging.getLogger(__name__)


class Audit:
    """Counts emails by the recipient's domain, hour by hour: the server counts the messages of a subject.

    eventlog_audit  stream: subject eventlog_audit.HOUR.DOMAIN, an empty message whose Nats-Msg-Id is the event's id
    """

    name = "audit"
    events: frozenset[str] | None = frozenset({EMAIL_REQUESTED})
    window = 100

    def __init__(self, nats: Nats) -> None:
        self._nats = nats

    async def handle(self, event: Event) -> None:
        hour, domain = hour_of(event.at), domain_of(event)
        if not all(domain.split(".")) or set(domain) & set("*>"):
            raise BadEvent("the domain cannot be a subject of NATS")
        await self._nats.publish(f"{AUDIT}.{hour}.{domain}", b"", {"Nats-Msg-Id": event.id})


async def audited(nats: Nats, at: float) -> dict[str, int]:
    """The counts of the hour of this time (unix seconds), the largest first."""
    prefix = f"{AUDIT}.{hour_of(at)}."
    state = (await nats.api(f"STREAM.INFO.{AUDIT}", subjects_filter=f"{prefix}>"))["state"]
    counts = {subject.removeprefix(prefix): int(n) for subject, n in (state.get("subjects") or {}).items()}
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


class AuditedLog(JetStreamLog):
    """The log, and the stream in which the audit counts."""

    async def _prepare(self, nats: Nats) -> None:
        await super()._prepare(nats)
        config = {"subjects": [f"{AUDIT}.>"], "max_age": AUDIT_COUNTS_SECONDS * 10**9}
        await nats.make_stream(AUDIT, num_replicas=self._replicas, duplicate_window=AUDIT_IDS_SECONDS * 10**9, **config)


@asynccontextmanager
async def open_jetstream(settings: Settings) -> AsyncIterator[tuple[EventLog, Counted]]:
    async with _opened(settings) as events:

        async def counted(at: float) -> dict[str, int]:
            return await audited(events.nats, at)

        yield events, counted


async def refuse_unusable(settings: Settings) -> None:
    """End the program with one line and exit status 2 if the server at NATS_URL refuses the login, has an invalid
    certificate, or has no JetStream. If the server is down, this does nothing: the roles try to connect again.
    """
    try:
        async with Nats(settings.nats) as nats:
            await nats.check_jetstream()
    except Misconfigured as error:
        exit_with_usage_error(f"NATS_URL: {error}")
    except LogError:
        pass


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[JetStreamLog]:
    """If the server cannot be used, end the program with one line and exit status 2. While it is down, try again."""
    events = AuditedLog(settings.nats, settings.lease_seconds, replicas=settings.event_replicas)
    try:
        await events.__aenter__()
    except Misconfigured as error:
        exit_with_usage_error(f"NATS_URL: {error}")
    try:
        yield events
    finally:
        await events.__aexit__()


async def work(settings: Settings) -> None:
    """Run the handlers until this process is stopped."""
    async with _opened(settings) as events, Mailer(settings, patient=True) as mailer:
        email = EmailHandler(settings, mailer)
        log.info("on JetStream: the handlers email and audit; syndication needs Redis and does not run")
        with Beats(settings.nats) as beats:
            await run_handlers(settings, events, [email, Audit(events.nats)], beats)
        await email.sender.close()
