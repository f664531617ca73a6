"""The step `pass_on`: the master passes each email on and keeps nothing. The worker keeps the queue in its memory.

Loses: everything that the worker holds when it is killed, the emails that it is sending and those that wait for a
place. When the worker gets SIGTERM, an email that the master passes on at that moment can be lost too.
"""

import asyncio
import logging
from multiprocessing.connection import Connection
from typing import Any

import orjson
import uvloop

from asynckit.tasks import background, end_tasks
from common.http.serving import FINISH_SECONDS
from common.mail.emails import BadEmail, Email, email_from_json
from common.mail.errors import CannotAccept, SendError
from common.mail.mailer import Mailer
from common.mail.memory_queue import Entry, MemoryQueue
from common.mail.retry import may_retry
from common.mail.sender import PatientSender, window
from common.processes.process import stop_requested
from common.settings import Settings, checked_port

from .. import server
from ..children import Child
from ..master import CHECK_SECONDS, STOP_SECONDS
from ..pipe import ChildEnd, Message

log = logging.getLogger(__name__)


class Master:
    def __init__(self, settings: Settings) -> None:
        self._drain_seconds = settings.drain_seconds
        self._worker_ready = False
        self._stopping = False
        self._server = Child("web server", server.main, settings, self._from_server)
        self._worker = Child("email worker", main, settings, self._from_worker, self._worker_gone)

    async def run(self) -> None:
        """Run until stopped. Then accept nothing new, and let the worker send the rest within DRAIN_SECONDS."""
        await self._worker.start()
        await self._server.start()
        watch = asyncio.create_task(self._watch())
        stop = asyncio.create_task(stop_requested())
        await asyncio.wait([watch, stop], return_when=asyncio.FIRST_COMPLETED)
        log.info("stopping")
        self._stopping = True
        await self._server.stop(FINISH_SECONDS + 1)
        watch.cancel()
        await self._worker.stop(self._drain_seconds + STOP_SECONDS)
        if watch.done() and not watch.cancelled():
            watch.result()  # raises its error

    async def _watch(self) -> None:
        """Check the children once a second."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            for child in (self._worker,) if self._stopping else (self._worker, self._server):
                await child.check()

    def _from_server(self, message: Message) -> None:
        match message:
            case ["put", number, *emails]:
                self._server.send("answer", number, *self._pass_on(emails))
            case ["stats", number]:
                self._server.send("answer", number, self._stats())
            case ["health", number]:
                self._server.send("answer", number, self._refusal())

    def _pass_on(self, emails: list[dict[str, str]]) -> tuple[int, str | None]:
        """Pass the emails on if the worker runs: how many, and why not more."""
        if refusal := self._refusal():
            return 0, refusal
        for email in emails:
            self._worker.send("send", email)
        return len(emails), None  # from here on only the worker has them: its death loses them

    def _refusal(self) -> str | None:
        return None if self._worker_ready else "the email worker does not run"

    def _from_worker(self, message: Message) -> None:
        match message:
            case ["ready"]:
                self._worker_ready = True
            case ["stopping"]:
                self._worker_ready = False

    def _worker_gone(self) -> None:
        self._worker_ready = False

    def _stats(self) -> dict[str, Any]:
        return {f"restarts_{child.name.replace(' ', '_')}": child.restarts for child in (self._server, self._worker)}


class Worker:
    def __init__(self, settings: Settings, connection: Connection) -> None:
        self._settings = settings
        self._master = ChildEnd("email worker", connection, self._receive)
        self._sending: set[asyncio.Task[None]] = set()
        self._outbox: MemoryQueue[Email] = MemoryQueue(
            self._hand_out, settings.attempts, window(settings.emails_per_second), pause=settings.retry_pause
        )
        self._sender: PatientSender

    async def run(self) -> None:
        """Run until stopped. Then send the rest within DRAIN_SECONDS, and log what is lost."""
        async with Mailer(self._settings, patient=True) as mailer, self._master:
            self._sender = PatientSender(mailer, self._settings.emails_per_second)
            self._outbox.open()
            self._master.pipe.send("ready")
            log.info("ready, as the step %s", self._settings.step)
            await self._master.stop_requested()
            self._master.pipe.send("stopping")
            await self._outbox.drain(self._settings.drain_seconds)
            self._outbox.log_lost(f"not sent within {self._settings.drain_seconds:g} s of the stop")
            await end_tasks(self._sending)
            await self._sender.close()

    def _receive(self, message: Message) -> None:
        """`["send", {email}]`"""
        _, members = message
        payload = orjson.dumps(members)
        try:
            email = email_from_json(payload, self._settings.id_domain)
            self._outbox.put(email.id, email, len(payload))
        except (BadEmail, CannotAccept) as error:  # its caller has a 202 already
            log.error("lost %s: %s", members.get("id"), error)

    def _hand_out(self, entry: Entry[Email]) -> None:
        task = background(self._send(entry.payload), "sending an email")
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, email: Email) -> None:
        try:
            await self._sender.send(email)
        except SendError as error:
            self._outbox.mark_failed(email.id, f"{type(error).__name__}: {error}", again=may_retry(error))
        except Exception:
            log.exception("a bug kept %s from being sent", email.id)
            self._outbox.mark_failed(email.id, "a bug; the log has the traceback", again=False)
        else:
            self._outbox.mark_sent(email.id)


async def work(settings: Settings) -> None:
    """Start the others and carry their messages, until this process is stopped."""
    checked_port(settings)  # here, because a child is restarted whatever its exit status
    await Master(settings).run()


async def send_all(settings: Settings, connection: Connection) -> None:
    """Send what the master passes on, until this process is stopped."""
    await Worker(settings, connection).run()


def main(settings: Settings, connection: Connection) -> None:
    """The email worker's process, started by the master."""
    uvloop.run(send_all(settings, connection))
