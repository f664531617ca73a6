"""The email worker: it sends the emails that it gets from the master, several at a time, and reports each result."""

import asyncio
import logging
from multiprocessing.connection import Connection

import orjson
import uvloop

from asynckit.tasks import background
from common.mail.emails import BadEmail, email_from_json
from common.mail.errors import SendError
from common.mail.mailer import Mailer
from common.mail.retry import may_retry
from common.mail.sender import PatientSender
from common.settings import Settings

from .pipe import ChildEnd, Message

log = logging.getLogger(__name__)


class Worker:
    def __init__(self, settings: Settings, connection: Connection) -> None:
        self._settings = settings
        self._master = ChildEnd("email worker", connection, self._receive)
        self._sending: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._sender: PatientSender

    async def run(self) -> None:
        async with Mailer(self._settings, patient=True) as mailer, self._master:
            self._sender = PatientSender(mailer, self._settings.emails_per_second, self._report_pause)
            self._master.pipe.send("ready")
            log.info("ready to send")
            reason = await self._master.stop_requested()
            self._stopping = True
            if reason == "SIGTERM" and self._sending:  # the master itself waits for these before it says "stop"
                await asyncio.wait(self._sending, timeout=self._settings.drain_seconds)
            await self._sender.close()

    def _receive(self, message: Message) -> None:
        """Start a task for `["send", {email}]`. The master's window limits how many there are at a time."""
        # The master keeps the email for the next worker. A send that starts now could be cut off and come twice.
        if self._stopping:
            return
        _, email = message
        task = background(self._send(email), "sending an email")
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, members: dict[str, str]) -> None:
        report = self._master.pipe.send
        email_id = members["id"]
        try:
            await self._sender.send(email_from_json(orjson.dumps(members), self._settings.id_domain))
        except (SendError, BadEmail) as error:
            again = isinstance(error, SendError) and may_retry(error)
            report("failed", email_id, f"{type(error).__name__}: {error}", again)
        except Exception:
            log.exception("a bug kept %s from being sent", email_id)
            report("failed", email_id, "a bug; the log has the traceback", False)
        else:
            report("sent", email_id)

    def _report_pause(self, _: SendError | None) -> None:
        self._master.pipe.send("paused", self._sender.paused)


async def work(settings: Settings, connection: Connection) -> None:
    """Send the emails that the master passes on, until this process is told to stop."""
    await Worker(settings, connection).run()


def main(settings: Settings, connection: Connection) -> None:
    """Run the email worker in the process that the master has started for it."""
    uvloop.run(work(settings, connection))
