"""Watches any number of queues on one connection: for a worker that has more queues than waiting connections.

`CLIENT TRACKING` is made for caches (https://redis.io/docs/latest/develop/reference/client-side-caching/): after a
client has read a key, Redis sends it one message when any program changes the key. Here the client reads the
keys of all empty queues with one EXISTS. It reads a key that has changed again before the worker next waits. So an idle
worker costs Redis one EXISTS per second, and each job costs one EXISTS of one key.

Redis refuses this command if the user has no permission for it, and a proxy may refuse it too. Then the same EXISTS is
repeated every POLL_SECONDS.
"""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from hiredis import pack_command
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from asynckit.backoff import backoff_seconds
from asynckit.log_limit import REDIS, OncePerSecond
from asynckit.redis_client import CALL_ERRORS, describe
from asynckit.tasks import run_together

from .keys import Keys

POLL_SECONDS = 0.1
CHECK_SECONDS = 1.0  # between two reads of all keys, which also show that the connection is alive
PAUSE_CAP_SECONDS = 0.5

log = logging.getLogger(__name__)


class Watcher:
    """Sets `wake` when one of the queues given to `watch` has a job."""

    def __init__(self, waiting_redis: Redis, keys: Keys, queues: Iterable[str], wake: asyncio.Event) -> None:
        """`waiting_redis` must wait longer than CHECK_SECONDS for an answer."""
        self.tracked = False
        """Whether Redis reports changes; otherwise this polls."""
        self._pool: Any = waiting_redis.connection_pool
        self._keys = {queue: keys.queue(queue).encode() for queue in queues}
        self._wake = wake
        self._watched: set[bytes] = set()
        self._armed: set[bytes] = set()  # Redis reports the next change of these
        self._changed = asyncio.Event()
        self._log = OncePerSecond(log, REDIS)

    def watch(self, queues: Iterable[str]) -> None:
        """Set `wake` once when one of these has a job. Replaces the queues of the last call; ignores unknown ones."""
        self._watched = {self._keys[queue] for queue in queues if queue in self._keys}
        if not self._watched <= self._armed:
            self._changed.set()

    async def run(self) -> None:
        """Run until cancelled."""
        failures = 0
        while True:
            connected = asyncio.get_running_loop().time()
            try:
                await self._use_connection()
            except CALL_ERRORS as error:
                lasted = asyncio.get_running_loop().time() - connected
                failures = 1 if lasted > CHECK_SECONDS else failures + 1
                self._log.warning("cannot wait for jobs: %s", describe(error))
                await asyncio.sleep(backoff_seconds(failures, base=0.05, cap=PAUSE_CAP_SECONDS))

    async def _use_connection(self) -> None:
        """Watch until the connection fails."""
        connection = await self._pool.get_connection()
        try:
            self._armed.clear()
            self.tracked = await self._track(connection)
            await run_together(self._ask(connection), self._listen(connection))
        finally:
            await connection.disconnect(nowait=True)  # its state is not what other users of the pool expect
            await self._pool.release(connection)

    async def _track(self, connection: Any) -> bool:
        with suppress(ResponseError):
            for words in (("HELLO", 3), ("CLIENT", "TRACKING", "ON")):  # RESP3 has messages beside the answers
                await connection.send_command(*words)
                await connection.read_response()
            connection._parser.set_invalidation_push_handler(self._report)
            return True
        return False

    async def _ask(self, connection: Any) -> None:
        """Read the keys that have changed, and all of them from time to time."""
        seconds = CHECK_SECONDS if self.tracked else POLL_SECONDS
        everything = True
        while True:
            self._changed.clear()
            keys = self._watched if everything else self._watched - self._armed
            if self.tracked:
                self._armed |= keys
            words: Any = ("EXISTS", *keys) if keys else ("PING",)  # PING: only to see that the connection is alive
            await connection.send_packed_command([pack_command(words)])
            everything = False
            try:
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
            except TimeoutError:
                everything = True

    async def _listen(self, connection: Any) -> None:
        while True:
            answer = await connection.read_response(push_request=True)
            if isinstance(answer, int) and answer > 0:
                self._found()

    async def _report(self, message: Any) -> None:
        """A message: these keys have changed; None means all of them."""
        _, keys = message
        changed = self._armed & set(keys) if keys is not None else set(self._armed)
        self._armed -= changed
        if changed & self._watched:
            self._found()

    def _found(self) -> None:
        """The claim that follows finds the job, and then `watch` is called again."""
        if self._watched:
            self._watched = set()
            self._wake.set()
