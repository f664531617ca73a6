"""The email worker: it sends what the master hands it, several at a time, and says what became of each."""

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
            self._sender = PatientSender(mailer, self._settings.emails_per_second, self._tell_pause)
            self._master.pipe.send("ready")
            log.info("ready to send")
            asked_by = await self._master.stop_requested()
            self._stopping = True
            if asked_by == "SIGTERM" and self._sending:  # the master has done its waiting
                await asyncio.wait(self._sending, timeout=self._settings.drain_seconds)
            await self._sender.close()

    def _receive(self, message: Message) -> None:
        """`["send", {email}]`: the master has no more than its window in our hands, so each may have a task."""
        # At the end it waits with the master for the next worker; begun now, it could be cut off and come twice.
        if self._stopping:
            return
        _, email = message
        task = background(self._send(email), "sending an email")
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, members: dict[str, str]) -> None:
        tell = self._master.pipe.send
        email_id = members["id"]
        try:
            await self._sender.send(email_from_json(orjson.dumps(members), self._settings.id_domain))
        except (SendError, BadEmail) as error:
            again = isinstance(error, SendError) and may_retry(error)
            tell("failed", email_id, f"{type(error).__name__}: {error}", again)
        except Exception:
            log.exception("a bug kept %s from being sent", email_id)
            tell("failed", email_id, "a bug; the log has the traceback", False)
        else:
            tell("sent", email_id)

    def _tell_pause(self, reason: str | None) -> None:
        self._master.pipe.send("paused", reason)


async def work(settings: Settings, connection: Connection) -> None:
    """Send what the master hands over, until this process is asked to stop."""
    await Worker(settings, connection).run()


def main(settings: Settings, connection: Connection) -> None:
    """The email worker's process, started by the master."""
    uvloop.run(work(settings, connection))
