"""The handlers: what the program does after an event. Each handler is a consumer with its own cursor.

To add a handler, write a class with a name, the names of its events, and `handle`, and add it to `make_handlers`. It
starts at the beginning of the log and catches up. An event may come to it twice (after a kill or in a replay), so it
must be idempotent: Audit, for example, remembers the ids that it has counted.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from redis.asyncio import Redis

from asynckit.bytes_redis import bytes_redis
from asynckit.cluster_client import client_of
from common.mail.emails import BadEmail, Email, email_from_members
from common.mail.errors import SendError
from common.mail.mailer import Mailer
from common.mail.retry import may_retry
from common.mail.sender import PatientSender, window
from common.settings import Settings
from eventlog.events import BadEvent, Event
from eventlog.handlers import ErrorKind, Handler
from eventlog.scripts import Scripts
from eventlog.syndication import Syndication
from resque import Queue, namespace_for

EMAIL_REQUESTED = "email_requested"

AUDIT_WINDOW = 250  # more would keep Redis busy for several ms, and every request would wait
AUDIT_GATHER_SECONDS = 0.05  # at most 5,000 events a second, so that Redis has time for other clients
AUDIT_IDS_SECONDS = 2 * 86_400  # an event that is repeated within this time is not counted again
AUDIT_COUNTS_SECONDS = 30 * 86_400

LUA = Path(__file__).parent / "lua"

log = logging.getLogger(__name__)


def error_kind(error: Exception) -> ErrorKind:
    """PERMANENT: the event is not a valid event or email, or the mail server refuses the email for good."""
    if isinstance(error, (BadEvent, BadEmail)):
        return ErrorKind.PERMANENT
    if isinstance(error, SendError):
        return ErrorKind.TEMPORARY if may_retry(error) else ErrorKind.PERMANENT
    return ErrorKind.BUG


class EmailHandler:
    """Sends the email. While the mail server is down it waits: the lag grows, and no event is lost."""

    name = "email"
    events: frozenset[str] | None = frozenset({EMAIL_REQUESTED})

    def __init__(self, settings: Settings, mailer: Mailer) -> None:
        self.window = window(settings.emails_per_second)
        self.sender = PatientSender(mailer, settings.emails_per_second)
        self._domain = settings.id_domain

    async def handle(self, event: Event) -> None:
        await self.sender.send(email_of(event, self._domain))


class Audit:
    """Counts emails by the recipient's domain and by hour. The hour is that of the append, by Redis's clock.

    eventlog:audit:{HOUR}      hash  domain -> emails; HOUR in UTC, 2026-11-25T09
    eventlog:audit_ids:{HOUR}  set   the ids of the counted events: a repeated event is not counted again
    """

    name = "audit"
    events: frozenset[str] | None = frozenset({EMAIL_REQUESTED})
    window = AUDIT_WINDOW
    gather_seconds = AUDIT_GATHER_SECONDS

    def __init__(self, redis: Redis) -> None:
        self._scripts = Scripts(redis, LUA)

    async def handle(self, event: Event) -> None:
        await self.handle_many([event])

    async def handle_many(self, events: Sequence[Event]) -> None:
        by_hour: dict[int, list[str]] = {}
        for event in events:
            by_hour.setdefault(int(event.at // 3600), []).append(f"{event.id} {domain_of(event)}\n")
        for hour, lines in by_hour.items():
            name = hour_of(hour * 3600)
            keys = [f"eventlog:audit:{{{name}}}", f"eventlog:audit_ids:{{{name}}}"]
            await self._scripts.run("count", keys, AUDIT_COUNTS_SECONDS, AUDIT_IDS_SECONDS, "".join(lines))


async def audited(redis: Redis, at: float) -> dict[str, int]:
    """The counts of the hour of this time (unix seconds), the largest first. Raises RedisError."""
    counts = await bytes_redis(redis).hgetall(f"eventlog:audit:{{{hour_of(at)}}}")
    named = {domain.decode(errors="replace"): int(n) for domain, n in counts.items() if n.isdigit() and len(n) < 16}
    return dict(sorted(named.items(), key=lambda item: -item[1]))


def make_handlers(settings: Settings, redis: Redis, mailer: Mailer) -> list[Handler]:
    """The handlers that a worker runs."""
    namespace = namespace_for(settings.redis)
    return [
        EmailHandler(settings, mailer),
        Audit(redis),
        Syndication(redis, Queue(client_of(redis, namespace), namespace)),
    ]


def email_of(event: Event, domain: str) -> Email:
    """Validates the event, because any program can write to the log. Raises BadEmail."""
    return email_from_members({**event.data, "id": event.id}, domain)


def hour_of(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H", time.gmtime(at))


def domain_of(event: Event) -> str:
    """The domain of the recipient. Raises BadEvent if it is missing."""
    to = event.data.get("to")
    _, at, domain = to.rpartition("@") if isinstance(to, str) else ("", "", "")
    if not at or not domain or domain != "".join(domain.split()):
        raise BadEvent("the event has no email address of a recipient")
    return domain
