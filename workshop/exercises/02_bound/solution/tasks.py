"""Your file: tasks that send emails after the answer."""

import asyncio

from common.mail.emails import Email
from common.mail.errors import CannotAccept, SendError
from common.mail.mailer import Mailer

LIMIT = 20  # emails in flight


class SendingTasks:
    def __init__(self, mailer: Mailer) -> None:
        self._mailer = mailer
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, email: Email) -> None:
        """Start to send the email, and return at once.

        Raises CannotAccept(reason), which the server answers with 503, if LIMIT emails are in flight.
        """
        if len(self._tasks) >= LIMIT:
            raise CannotAccept(f"{LIMIT} emails are already in flight")
        task = asyncio.create_task(self._send(email))
        self._tasks.add(task)  # the event loop keeps only weak references
        task.add_done_callback(self._tasks.discard)

    async def _send(self, email: Email) -> None:
        try:
            await self._mailer.send(email)
        except SendError as error:
            print(f"not sent {email.id}: {error}", flush=True)
