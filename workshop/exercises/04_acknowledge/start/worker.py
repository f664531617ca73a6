"""Your file: an email worker of strategy 3. The master keeps each email until this worker acknowledges it.

The two send each other lines of JSON through a Unix socket, whose path is in the environment variable MASTER:

    master → worker   {"send": {"id", "to", "subject", "text"}}
    worker → master   {"done": "<id>"}     the master may forget this email
    worker → master   {"failed": "<id>"}   the mail server will never accept it: the master may forget it

When the worker dies, the master starts another one and sends it all emails again that were neither done nor failed.
"""

import asyncio
import json
import os

from common.mail.emails import Email
from common.mail.errors import Refused, SendError  # noqa: F401  you may need both
from common.mail.mailer import Mailer
from common.processes.process import run
from common.settings import read_settings

PAUSE_SECONDS = 0.1  # before another attempt


class Worker:
    def __init__(self, mailer: Mailer, writer: asyncio.StreamWriter) -> None:
        self._mailer = mailer
        self._writer = writer

    def tell(self, what: str, email: Email) -> None:
        """`what` is "done" or "failed"."""
        self._writer.write(json.dumps({what: email.id}).encode() + b"\n")

    async def work_on(self, email: Email) -> None:
        self.tell("done", email)
        try:
            await self._mailer.send(email)
        except SendError as error:
            print(f"not sent {email.id}: {error}", flush=True)


async def work() -> None:
    """Work on every email that the master sends, several at a time, until the master closes the connection."""
    reader, writer = await asyncio.open_unix_connection(os.environ["MASTER"])
    async with Mailer(read_settings(), patient=True) as mailer, asyncio.TaskGroup() as tasks:
        worker = Worker(mailer, writer)
        print("ready", flush=True)
        async for line in reader:
            tasks.create_task(worker.work_on(Email(**json.loads(line)["send"])))


if __name__ == "__main__":
    run(work(), until_stopped=False)
