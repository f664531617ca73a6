"""Registers a process's slots as workers in Redis and renews the lease on their jobs.

A lease ends at a time by Redis's clock. A heartbeat in its own thread renews it. If the heartbeat comes too late,
because the process was suspended or lost its connection, other workers take over its jobs and this process registers
again under a new name. A name is never used twice, not even by the same process number on the same host (in a container
that number is always 1): the jobs of a dead worker stay under its own name until another worker recovers them.
"""

import asyncio
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any, Self

import orjson
import redis
from redis.exceptions import TimeoutError as RedisTimeoutError

from asynckit.heartbeat import Heartbeat
from asynckit.redis_client import CALL_ERRORS

from .claims import Slot
from .connections import AnswerLimit
from .keys import Keys
from .scripts import Scripts, source
from .wire import heartbeat_at, ping, started_at

BEATS = 3  # heartbeats in one lease: two may fail
AT_ONCE = 500  # slots in one call: a script blocks other clients of Redis, and packing its keys blocks the event loop

log = logging.getLogger(__name__)


class Registration:
    """Registers slots and renews their lease. `on_lost` is called on the event loop when the lease has ended."""

    def __init__(
        self,
        scripts: Scripts,
        thread_redis: redis.Redis,
        keys: Keys,
        queues: Sequence[str],
        lease_seconds: float,
        on_lost: Callable[[], object],
    ) -> None:
        self.slots: dict[int, Slot] = {}
        self._scripts = scripts
        self._redis = thread_redis
        # After a lost answer there must be time for more heartbeats before the lease ends.
        self._limit = AnswerLimit(thread_redis, lease_seconds / BEATS / 2, lease_seconds / 2)
        self._keys = keys
        self._queues = list(queues)
        self._lease = int(lease_seconds * 1000)
        self._on_lost = on_lost
        self._ahead = 0.0  # seconds by which Redis's clock is ahead of ours
        self._lock = threading.Lock()  # guards `slots`, which the heartbeat's thread reads
        self._lost = False
        self._next_beat = 0  # the number of a slot
        self._beat = thread_redis.register_script(source("beat"))
        self._numbers = count(1)
        self._heartbeat = Heartbeat(self._send_beats, lease_seconds / BEATS)
        self.host = self._new_host()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        await self._heartbeat.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._heartbeat.__aexit__(*error)
        self._redis.close()

    async def add(self, count: int) -> list[Slot]:
        """Register up to `count` more slots. Raises RedisError if none was added.

        A slot whose registration got no answer is not used: its lease ends.
        """
        added: list[Slot] = []
        for some in batches([self._new_slot(next(self._numbers)) for _ in range(count)]):
            try:
                await self._register(some)
            except asyncio.CancelledError:
                self._record(some)  # Redis may have registered them, so they must be removed with the others
                raise
            except CALL_ERRORS:
                if not added:
                    raise
                break
            self._record(some)
            added += some
        return added

    def _record(self, slots: Sequence[Slot]) -> None:
        with self._lock:
            self.slots |= {slot.number: slot for slot in slots}

    async def remove(self, slots: Sequence[Slot]) -> None:
        """Unregister these slots. Raises RedisError; then they stay in Redis until their lease ends."""
        with self._lock:
            for slot in slots:
                self.slots.pop(slot.number, None)
        await self._unregister_all(slots)

    async def register_again(self) -> list[Slot]:
        """Replace all slots by new ones under a new name: the old ones are lost. Raises RedisError; then call again."""
        self.host = self._new_host()
        slots = [self._new_slot(next(self._numbers)) for _ in self.slots]
        for some in batches(slots):
            await self._register(some)
        with self._lock:
            self.slots = {slot.number: slot for slot in slots}
            self._lost = False
        return slots

    async def _register(self, slots: Sequence[Slot]) -> None:
        keys, now = self._keys, time.time() + self._ahead
        names = [keys.heartbeats, keys.leases, keys.workers]
        for slot in slots:
            names += (keys.started(slot.id), keys.ping(slot.name))
        ids = orjson.dumps([slot.id for slot in slots])
        arguments = (self._lease, ids, heartbeat_at(now), started_at(now), self._pings(slots, now))
        self._ahead = float(await self._scripts("register", names, *arguments)) - time.time()

    async def _unregister_all(self, slots: Sequence[Slot]) -> None:
        for some in batches(slots):
            await self._unregister(some)

    async def _unregister(self, slots: Sequence[Slot]) -> None:
        keys = self._keys
        names = [keys.heartbeats, keys.leases, keys.workers]
        for slot in slots:
            names += (keys.worker(slot.id), keys.started(slot.id), keys.ping(slot.name))
            names += (keys.processed(slot.id), keys.failures(slot.id))
        await self._scripts("unregister", names, orjson.dumps([slot.id for slot in slots]), keys.queue(""))

    def _send_beats(self) -> None:
        """Renew the leases. The heartbeat's thread calls it."""
        with self._lock:
            slots = list(self.slots.values())
        later = [slot for slot in slots if slot.number >= self._next_beat]
        for some in batches(later + slots[: len(slots) - len(later)]):
            if self._lost:
                return
            self._next_beat = some[0].number  # after an error the next call continues here
            try:
                self._send_beat(some)
            except RedisTimeoutError:
                self._limit.timed_out()
                raise
            self._limit.answered()
        self._next_beat = 0

    def _send_beat(self, slots: Sequence[Slot]) -> None:
        keys, now = self._keys, time.time() + self._ahead
        names = [keys.heartbeats, keys.leases, keys.workers, *(keys.ping(slot.name) for slot in slots)]
        ids = orjson.dumps([slot.id for slot in slots])
        answer: Any = self._beat(keys=names, args=[self._lease, ids, heartbeat_at(now), self._pings(slots, now)])
        redis_now, *lost = answer
        self._ahead = redis_now - time.time()
        with self._lock:  # a slot that was removed in the meantime is not lost
            self._lost = any(slots[number - 1].number in self.slots for number in lost)
        if self._lost:
            self._loop.call_soon_threadsafe(self._report_lost)

    def _report_lost(self) -> None:
        if self._lost:  # unless the slots were registered again in the meantime
            self._on_lost()

    def _pings(self, slots: Sequence[Slot], now: float) -> bytes:
        return orjson.dumps([ping(slot.name, self._queues, now) for slot in slots])

    def _new_slot(self, number: int) -> Slot:
        name = f"{self.host}:{os.getpid()}+{number}"
        return Slot(number, name, f"{name}:{','.join(self._queues)}")

    @staticmethod
    def _new_host() -> str:
        """A host name for this process. A Ruby worker declares every worker dead that has the Ruby worker's host name
        and is not among the processes there, so the machine's own name gets a random suffix.

        None of its characters needs escaping in JSON.
        """
        machine = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname()) or "localhost"
        return f"{machine}.{secrets.token_hex(4)}"


def batches(slots: Sequence[Slot]) -> Iterator[Sequence[Slot]]:
    return (slots[first : first + AT_ONCE] for first in range(0, len(slots), AT_ONCE))
