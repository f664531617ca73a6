"""Opens the log that LOG selects: `lua` (partitions), `streams` or `jetstream`; or the log of a step."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from redis.asyncio import Redis

from asynckit.durability import warn_if_not_durable
from asynckit.redis_client import redis_client
from common.settings import Settings
from eventlog.interface import Counted, EventLog
from eventlog.log import Log
from eventlog.partitions import PartitionedLog
from eventlog.streams import StreamLog

from .handlers import audited
from .producer import Producer
from .steps import talk

AnyProducer = Producer | talk.Producer  # they have the same methods


def make_log(settings: Settings, redis: Redis) -> Log:
    streams = StreamLog(redis, settings.lease_seconds, ack_replicas=settings.ack_replicas)
    lua = PartitionedLog(redis, settings.lease_seconds, settings.partition_seconds, ack_replicas=settings.ack_replicas)
    lua.other, streams.other = streams, lua
    return streams if settings.log == "streams" or settings.step == "group" else lua


def on_jetstream(settings: Settings) -> bool:
    """The steps run on Redis, whatever LOG says."""
    return settings.log == "jetstream" and settings.step is None


@asynccontextmanager
async def open_log(settings: Settings, *, warn: bool = False) -> AsyncIterator[tuple[EventLog, Counted]]:
    """The log of LOG, and a function that returns what the audit has counted in the hour of a time.

    `warn`: one line in the log if Redis may lose events.
    """
    if on_jetstream(settings):
        from .jetstream import open_jetstream  # needs nats-py, which only LOG=jetstream installs

        async with open_jetstream(settings) as opened:
            yield opened
    else:
        async with redis_client(settings.redis) as redis, make_log(settings, redis) as log:
            if warn:
                await warn_if_not_durable(redis)
            yield log, partial(audited, redis)


@asynccontextmanager
async def open_producer(settings: Settings) -> AsyncIterator[AnyProducer]:
    """A Producer for this log. The first two steps have a log and a producer of their own."""
    if settings.step in ("cursor_first", "commit_after"):
        async with redis_client(settings.redis) as redis:
            await warn_if_not_durable(redis)
            yield talk.Producer(redis, own_clock=settings.step == "cursor_first")
    else:
        async with open_log(settings, warn=True) as (log, _):
            yield Producer(log)
