"""The one new idea: tasks that go on sending after the answer, with a reference to each of them."""

import asyncio
import logging
from types import TracebackType
from typing import Self

from common.mail.emails import Email
from common.mail.errors import CannotAccept, SendError
from common.mail.mailer import Mailer

LIMIT = 1000  # tasks in flight: they fill the memory, and a crash loses all of them

log = logging.getLogger(__name__)


class SendingTasks:
    """Sends each email in a task of its own. `failed` counts the emails whose only attempt failed."""

    def __init__(self, mailer: Mailer, drain_seconds: float) -> None:
        self.sent = 0
        self.failed = 0
        self._mailer = mailer
        self._drain_seconds = drain_seconds
        # The event loop keeps only weak references: a task without another reference may be garbage-collected midway.
        self._tasks: dict[asyncio.Task[None], Email] = {}

    def start(self, email: Email) -> None:
        """Start to send the email, and return at once. Raises CannotAccept when too many are in flight."""
        self.check_room()
        task = asyncio.create_task(self._send(email))
        self._tasks[task] = email
        task.add_done_callback(self._tasks.pop)

    async def _send(self, email: Email) -> None:
        try:
            await self._mailer.send(email)
        except SendError as error:  # the caller has its 202 already, so only the log and /stats can tell of the failure
            self.failed += 1
            log.warning("not sent %s to %s: %s: %s", email.id, email.to, type(error).__name__, error)
        except Exception:
            self.failed += 1
            log.exception("a bug kept %s from being sent", email.id)
        else:
            self.sent += 1

    def check_room(self) -> None:
        if len(self._tasks) >= LIMIT:
            raise CannotAccept(f"{LIMIT} emails are already in flight")

    @property
    def in_flight(self) -> int:
        return len(self._tasks)

    @property
    def oldest_seconds(self) -> float:
        return self._mailer.oldest_seconds

    @property
    def login_failed(self) -> str | None:
        return self._mailer.login_failed

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the tasks `drain_seconds` to finish; log the id of each email that is lost."""
        if self._tasks:
            log.info("waiting up to %g s for %d emails in flight", self._drain_seconds, len(self._tasks))
            await asyncio.wait(self._tasks, timeout=self._drain_seconds)
        left = dict(self._tasks)
        for task, email in left.items():
            log.error("lost %s to %s: not sent within %g s of the stop", email.id, email.to, self._drain_seconds)
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
