"""The worker: runs the consumers of the log, each with its handler. Any number of workers share the events."""

from collections.abc import Sequence
from typing import Any

from asynckit.durability import warn_if_not_durable
from asynckit.redis_client import ANSWER_SECONDS, blocking_redis_client, redis_client
from common.mail.mailer import Mailer
from common.processes.process import stop_requested
from common.settings import Settings
from eventlog.consumers import Consumer
from eventlog.handlers import Handler
from eventlog.interface import EventLog
from eventlog.worker import BEATS, Worker

from .handlers import EmailHandler, error_kind, make_handlers
from .logs import make_log, on_jetstream


async def run_handlers(settings: Settings, events: EventLog, handlers: Sequence[Handler], client: Any) -> None:
    """Run the handlers until this process is stopped. `client` is the connection of the heartbeat's thread."""
    consumers = [Consumer(events, handler, settings.attempts, settings.retry_pause, error_kind) for handler in handlers]
    worker = Worker(
        events,
        consumers,
        lease_seconds=settings.lease_seconds,
        drain_seconds=settings.drain_seconds,
        retention_seconds=settings.retention_seconds,
        retention_bytes=settings.retention_bytes,
    )
    await worker.run(client, stop_requested)


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
            await run_handlers(settings, events, handlers, client)
        for handler in handlers:
            if isinstance(handler, EmailHandler):
                await handler.sender.close()
    client.close()
