"""Your file: tasks that send emails after the answer, and finish on SIGTERM."""

import asyncio

from common.mail.emails import Email
from common.mail.errors import SendError
from common.mail.mailer import Mailer


class SendingTasks:
    def __init__(self, mailer: Mailer) -> None:
        self._mailer = mailer
        self._tasks: dict[asyncio.Task[None], Email] = {}

    def start(self, email: Email) -> None:
        task = asyncio.create_task(self._send(email))
        self._tasks[task] = email
        task.add_done_callback(self._tasks.pop)

    async def _send(self, email: Email) -> None:
        try:
            await self._mailer.send(email)
        except SendError as error:
            print(f"not sent {email.id}: {error}", flush=True)

    async def drain(self, seconds: float) -> None:
        """Called after SIGTERM. Give the tasks this time to finish; print `lost ID` for each email that is not sent."""
        print(f"{len(self._tasks)} emails are in flight", flush=True)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        left = dict(self._tasks)
        for task, email in left.items():
            print(f"lost {email.id}", flush=True)
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
