"""The master: it starts the two others, looks at them once a second, carries their messages, and keeps the emails.

An email is the master's from the moment it answers "put" until the worker has said "sent". Neither the server's death
nor the worker's can lose one: the server has handed it over, the worker has only borrowed it.
"""

import asyncio
import logging
import sys
from typing import Any

import orjson

from common.http.serving import FINISH_SECONDS
from common.mail.errors import CannotAccept
from common.mail.memory_queue import Entry, MemoryQueue
from common.mail.sender import window
from common.processes.process import stop_requested
from common.settings import Settings

from . import server, worker
from .children import Child
from .pipe import Message

LOOK_SECONDS = 1.0
STOP_SECONDS = 5.0  # how long the worker may take to end once it is told to

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
        """Until it is asked to stop: then take nothing new, send what there is within a limit, say what is left."""
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
        self._outbox.list_lost(f"not sent within {self._drain_seconds:g} s of the end")
        if watch.done() and not watch.cancelled():
            sys.exit(watch.result())

    async def _watch(self) -> int:
        """Look at the children once a second. Returns 2 when one says that the settings are wrong."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for child in (self._worker,) if self._stopping else (self._worker, self._server):
                if status := await child.look():
                    return status

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
        """Keep the emails as long as there is room: how many, and why not more."""
        for kept, email in enumerate(emails):
            # A copy, because orjson's own bytes keep the 4 kB buffer they were written into (measured: 4.4 kB an email
            # against 0.6 kB).
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
    """Start the others, carry their messages and keep the emails, until this process is asked to stop."""
    await Master(settings).run()
