"""Opens the log that LOG selects: `lua` (partitions) or `streams`."""

from redis.asyncio import Redis

from common.settings import Settings
from eventlog.log import Log
from eventlog.partitions import PartitionedLog
from eventlog.streams import StreamLog


def make_log(settings: Settings, redis: Redis) -> Log:
    streams = StreamLog(redis, settings.lease_seconds, ack_replicas=settings.ack_replicas)
    lua = PartitionedLog(redis, settings.lease_seconds, settings.partition_seconds, ack_replicas=settings.ack_replicas)
    lua.other, streams.other = streams, lua
    return streams if settings.log == "streams" or settings.step == "group" else lua
