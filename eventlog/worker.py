"""Runs consumers in one process: renews the leases of their events, trims the log, and stops them in order."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from asynckit.heartbeat import Heartbeat
from asynckit.isolation import isolating_task
from asynckit.tasks import background, end_tasks, keep_running

from .consumers import Consumer
from .errors import LOG_CALL_ERRORS, describe
from .events import Claimed
from .interface import EventLog

RETENTION_LOOK_SECONDS = 10.0
BEATS = 3  # heartbeats in a lease: a lease ends only after this many have failed

log = logging.getLogger(__name__)


class Worker:
    """It deletes events that every consumer has handled when they are older than `retention_seconds`, and the oldest
    events while the log is larger than `retention_bytes`.
    """

    def __init__(
        self,
        events: EventLog,
        consumers: Sequence[Consumer],
        *,
        lease_seconds: float,
        drain_seconds: float,
        retention_seconds: float,
        retention_bytes: int,
    ) -> None:
        self._events = events
        self._consumers = consumers
        for consumer in consumers:
            consumer.suspects.neighbours = [one.suspects for one in consumers if one is not consumer]
        self._lease_seconds = lease_seconds
        self._drain_seconds = drain_seconds
        self._retention = (retention_seconds, retention_bytes)

    async def run(self, client: Any, stop: Callable[[], Awaitable[str]]) -> None:
        """Run until `stop` returns the reason to stop. Then claim no more events, finish those in flight within
        `drain_seconds`, and give back the rest. `client` is the connection of the heartbeat's thread.
        """
        asyncio.get_running_loop().set_task_factory(isolating_task)
        consuming = [keep_running(consumer.run, f"consuming as {consumer.name}") for consumer in self._consumers]
        retention = keep_running(self._keep_within_limits, "trimming the log")
        async with Heartbeat(lambda: self._beat(client), self._lease_seconds / BEATS):
            log.info("consuming as %s", self._events.owner)
            log.info("stopping (%s)", await stop())
            await end_tasks([retention])
            for consumer in self._consumers:
                consumer.stop()
            self._events.stop_waiting()
            await asyncio.wait(consuming)
            limit = self._drain_seconds
            await asyncio.wait([background(c.drain(limit), f"draining {c.name}") for c in self._consumers])
        log.info("stopped: handled %d, failed %d", *self._figures())

    def _figures(self) -> tuple[int, int]:
        return sum(c.handled for c in self._consumers), sum(c.failed for c in self._consumers)

    def _beat(self, client: Any) -> None:
        """Called in the heartbeat's thread."""
        held: list[Claimed] = [claimed for consumer in self._consumers for claimed in consumer.held()]
        if held:
            self._events.extend(client, held)

    async def _keep_within_limits(self) -> None:
        while True:
            await asyncio.sleep(RETENTION_LOOK_SECONDS)
            try:
                trimmed = await self._events.trim(*self._retention)
            except LOG_CALL_ERRORS as error:
                log.warning("could not trim the log: %s", describe(error))
                continue
            except Exception:
                log.exception("error while trimming the log")
                continue
            if trimmed.events:
                log.info("trimmed %d events that every consumer had handled", trimmed.events)
