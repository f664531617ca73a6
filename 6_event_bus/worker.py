"""The worker: runs the consumers of the log, each with its handler. Any number of workers share the events."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from asynckit.durability import warn_if_not_durable
from asynckit.heartbeat import Heartbeat
from asynckit.redis_client import ANSWER_SECONDS, blocking_redis_client, redis_client
from asynckit.tasks import background, end_tasks, keep_running
from common.mail.mailer import Mailer
from common.processes.process import stop_requested
from common.settings import Settings
from eventlog.consumers import Consumer
from eventlog.errors import LOG_CALL_ERRORS, describe
from eventlog.events import Claimed
from eventlog.handlers import Handler
from eventlog.interface import EventLog

from .handlers import EmailHandler, error_kind, make_handlers
from .logs import make_log, on_jetstream

RETENTION_LOOK_SECONDS = 10.0
BEATS = 3  # heartbeats in a lease: a lease ends only after this many have failed

log = logging.getLogger(__name__)


class Worker:
    def __init__(self, settings: Settings, events: EventLog, handlers: Sequence[Handler]) -> None:
        self._settings = settings
        self._events = events
        self._consumers = [
            Consumer(events, handler, settings.attempts, settings.retry_pause, error_kind) for handler in handlers
        ]

    async def run(self, client: Any) -> None:
        """Run until this process is stopped. Then claim no more events, finish those in flight, give back the rest.

        Finishing takes DRAIN_SECONDS at most. `client` is the connection of the heartbeat's thread.
        """
        consuming = [keep_running(consumer.run, f"consuming as {consumer.name}") for consumer in self._consumers]
        retention = keep_running(self._keep_within_limits, "trimming the log")
        async with Heartbeat(lambda: self._beat(client), self._settings.lease_seconds / BEATS):
            log.info("consuming as %s", self._events.owner)
            log.info("stopping (%s)", await stop_requested())
            await end_tasks([retention])
            for consumer in self._consumers:
                consumer.stop()
            self._events.stop_waiting()
            await asyncio.wait(consuming)
            limit = self._settings.drain_seconds
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
                trimmed = await self._events.trim(self._settings.retention_seconds, self._settings.retention_bytes)
            except LOG_CALL_ERRORS as error:
                log.warning("could not trim the log: %s", describe(error))
                continue
            except Exception:
                log.exception("error while trimming the log")
                continue
            if trimmed.events:
                log.info("trimmed %d events that every consumer had handled", trimmed.events)


async def work(settings: Settings) -> None:
    """Run all handlers until this process is stopped."""
    if on_jetstream(settings):
        from . import jetstream  # needs nats-py, which only LOG=jetstream installs

        await jetstream.work(settings)
        return
    answer_seconds = min(ANSWER_SECONDS, settings.lease_seconds / BEATS)
    client = blocking_redis_client(settings.redis, answer_seconds)
    async with redis_client(settings.redis) as redis, Mailer(settings, patient=True) as mailer:
        await warn_if_not_durable(redis)
        handlers = make_handlers(settings, redis, mailer)
        async with make_log(settings, redis) as events:
            await Worker(settings, events, handlers).run(client)
        for handler in handlers:
            if isinstance(handler, EmailHandler):
                await handler.sender.close()
    client.close()
