"""The heartbeat's own connection and event loop, in a thread: heartbeats continue while a handler blocks its loop."""

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, Self

from .errors import LogError
from .nats_client import ANSWER_SECONDS, Nats
from .outcomes import redis_log as log_once


class Beats:
    def __init__(self, url: str) -> None:
        self._nats = Nats(url)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="NATS heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._nats.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._nats.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(2 * ANSWER_SECONDS)

    def send(self, subjects: Sequence[str], payload: bytes) -> None:
        """Called in the heartbeat's thread. If the server is down, this logs one line."""
        try:
            self._run(self._nats.send(subjects, payload))
        except (LogError, TimeoutError) as error:
            log_once.warning("no heartbeat: %s", error or "NATS does not answer in time")
