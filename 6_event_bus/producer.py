"""The one new idea: the server appends an event to a log, and does not know the consumers that will act on it."""

from redis.exceptions import ConnectionError, RedisError

from asynckit.redis_client import CALL_ERRORS
from common.handover import handover_error
from common.http.frame import Stats
from common.mail.emails import Email
from common.mail.errors import CannotAccept, NoAnswer
from eventlog.errors import LOG_CALL_ERRORS, LogError, NotTaken, describe
from eventlog.events import Event
from eventlog.interface import EventLog

from .handlers import EMAIL_REQUESTED


class Producer:
    def __init__(self, log: EventLog) -> None:
        self.log = log

    async def email_requested(self, email: Email) -> None:
        """Return when the event is in the log. Raises CannotAccept if it is not, NoAnswer if it may be.

        If the connection breaks, this repeats the append once. The first attempt may have reached Redis. Then the log
        finds the event's id, which is the email's id and was made for this request.
        """
        event = Event(email.id, EMAIL_REQUESTED, email.to_dict())
        try:
            await self.log.append(event, new=True)
        except (ConnectionError, RuntimeError) as error:
            await self._append_again(event, error)
        except RedisError as error:
            raise handover_error(error) from None
        except NotTaken as error:
            raise CannotAccept(str(error)) from None
        except LogError as error:
            raise NoAnswer(f"{error}: the email may still be sent") from None

    async def _append_again(self, event: Event, first: Exception) -> None:
        try:
            await self.log.append(event)
        except CALL_ERRORS as error:
            raise handover_error(first, error) from None

    async def check(self) -> None:
        """Raises CannotAccept when an event could not be appended now."""
        try:
            await self.log.check()
        except LOG_CALL_ERRORS as error:
            raise CannotAccept(describe(error)) from None

    async def stats(self) -> Stats:
        """The progress of the workers, as the log knows it; empty while Redis is down."""
        try:
            email, audit = await self.log.lag("email"), await self.log.lag("audit")
            newest = await self.log.partitions(newest=1)
            next_attempt = await self.log.next_attempt("email")
        except LOG_CALL_ERRORS:
            return {}
        lost = email.overtaken
        return {
            "sent": email.handled - email.unwanted,
            "failed": email.given_up,
            "parked": email.parked,
            "retried": email.retried,
            "waiting": email.waiting,
            "in_flight": email.pending,
            "oldest_wait_seconds": email.oldest_seconds,
            "next_attempt_seconds": next_attempt,
            "events": newest[0].first + newest[0].length if newest else 0,
            "audit_waiting": audit.waiting + audit.pending,
            "overtaken": None if lost is None or audit.overtaken is None else lost + audit.overtaken,
        }
