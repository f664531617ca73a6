"""The master: it starts the other two processes, checks them once a second, and keeps the emails until they are sent.

The master holds an email from the moment it answers "put" until the worker reports "sent". So the email survives the
death of the web server and of the worker: the master hands it to the next worker.
"""

import asyncio
import logging
from typing import Any

import orjson

from common.http.serving import FINISH_SECONDS
from common.mail.errors import CannotAccept
from common.mail.memory_queue import Entry, MemoryQueue
from common.mail.sender import window
from common.processes.process import stop_requested
from common.settings import Settings, checked_port

from . import server, worker
from .children import Child
from .pipe import Message

CHECK_SECONDS = 1.0
STOP_SECONDS = 5.0  # how long the worker may take to end after it is told to stop

log = logging.getLogger(__name__)


class Master:
    def __init__(self, settings: Settings) -> None:
        self._drain_seconds = settings.drain_seconds
        self._outbox: MemoryQueue[bytes] = MemoryQueue(
            self._hand_out, settings.attempts, window(settings.emails_per_second), pause=settings.retry_pause
        )
        self._paused: str | None = None
        self._stopping = False
        self._server = Child("web server", server.main, settings, self._from_server)
        self._worker = Child("email worker", worker.main, settings, self._from_worker, self._outbox.close)

    async def run(self) -> None:
        """Run until stopped. Then accept nothing new, send the rest within DRAIN_SECONDS, and log what is lost."""
        await self._worker.start()
        await self._server.start()
        watch = asyncio.create_task(self._watch())
        stop = asyncio.create_task(stop_requested())
        await asyncio.wait([watch, stop], return_when=asyncio.FIRST_COMPLETED)
        log.info("stopping")
        self._stopping = True
        await self._server.stop(FINISH_SECONDS + 1)
        await self._outbox.drain(self._drain_seconds)
        watch.cancel()
        await self._worker.stop(STOP_SECONDS)
        self._outbox.log_lost(f"not sent within {self._drain_seconds:g} s of the stop")
        if watch.done() and not watch.cancelled():
            watch.result()  # raises its error

    async def _watch(self) -> None:
        """Check the children once a second."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            for child in (self._worker,) if self._stopping else (self._worker, self._server):
                await child.check()

    def _hand_out(self, entry: Entry[bytes]) -> None:
        self._worker.send("send", orjson.Fragment(entry.payload))

    def _from_server(self, message: Message) -> None:
        match message:
            case ["put", number, *emails]:
                self._server.send("answer", number, *self._keep(emails))
            case ["stats", number]:
                self._server.send("answer", number, self._stats())
            case ["health", number]:
                self._server.send("answer", number, self._refusal())

    def _keep(self, emails: list[dict[str, str]]) -> tuple[int, str | None]:
        """Keep the emails while there is room. Returns how many were kept, and why the others were not."""
        for kept, email in enumerate(emails):
            # Copy the bytes, because those of orjson keep the 4 kB buffer they were written into (measured: 4.4 kB for
            # each email, 0.6 kB with the copy).
            payload = bytes(memoryview(orjson.dumps(email)))
            try:
                self._outbox.put(email["id"], payload, len(payload))
            except CannotAccept as error:
                return kept, str(error)
        return len(emails), None

    def _refusal(self) -> str | None:
        try:
            self._outbox.check_room()
        except CannotAccept as error:
            return str(error)
        return None

    def _from_worker(self, message: Message) -> None:
        match message:
            case ["ready"]:
                self._outbox.open()
            case ["sent", email_id]:
                self._outbox.mark_sent(email_id)
            case ["failed", email_id, reason, again]:
                self._outbox.mark_failed(email_id, reason, again=again)
            case ["paused", reason]:
                self._paused = reason

    def _stats(self) -> dict[str, Any]:
        restarts = {
            f"restarts_{child.name.replace(' ', '_')}": child.restarts for child in (self._server, self._worker)
        }
        return {**self._outbox.stats(), **restarts, "paused": self._paused or False}


async def work(settings: Settings) -> None:
    """Start the others, carry their messages and keep the emails, until this process is stopped."""
    checked_port(settings)  # here, because a child is restarted whatever its exit status
    await Master(settings).run()
