"""The one new idea: sends that go on after the answer, as tasks that somebody keeps hold of."""

import asyncio
import logging
from types import TracebackType
from typing import Self

from common.mail.emails import Email
from common.mail.errors import CannotAccept, SendError
from common.mail.mailer import Mailer

LIMIT = 1000  # tasks in flight. What is in flight is what a crash loses and what memory holds, so it has an end

log = logging.getLogger(__name__)


class SendingTasks:
    """Sends each email in a task of its own. `failed` counts those that were tried once and given up."""

    def __init__(self, mailer: Mailer, drain_seconds: float) -> None:
        self.sent = 0
        self.failed = 0
        self._mailer = mailer
        self._drain_seconds = drain_seconds
        # The event loop itself keeps only weak references: a task that nobody holds may vanish in the middle.
        self._tasks: dict[asyncio.Task[None], Email] = {}

    def start(self, email: Email) -> None:
        """Start to send, and return at once. Raises CannotAccept when too many are in flight."""
        self.check_room()
        task = asyncio.create_task(self._send(email))
        self._tasks[task] = email
        task.add_done_callback(self._tasks.pop)

    async def _send(self, email: Email) -> None:
        try:
            await self._mailer.send(email)
        except SendError as error:  # nobody waits for it any more: a line in the log and a number are all that is left
            self.failed += 1
            log.warning("not sent %s to %s: %s: %s", email.id, email.to, type(error).__name__, error)
        except Exception:
            self.failed += 1
            log.exception("a bug kept %s from being sent", email.id)
        else:
            self.sent += 1

    def check_room(self) -> None:
        if len(self._tasks) >= LIMIT:
            raise CannotAccept(f"{LIMIT} emails are in flight already")

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
        """Let the tasks end within the limit; say by id which emails are lost."""
        if self._tasks:
            log.info("waiting up to %g s for %d emails in flight", self._drain_seconds, len(self._tasks))
            await asyncio.wait(self._tasks, timeout=self._drain_seconds)
        left = dict(self._tasks)
        for task, email in left.items():
            log.error("lost %s to %s: not sent within %g s of the end", email.id, email.to, self._drain_seconds)
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
