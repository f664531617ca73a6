"""Which of the two logs: LOG=lua or LOG=streams."""

from redis.asyncio import Redis

from common.settings import Settings

from .log import Log
from .partitions import PartitionedLog
from .streams import StreamLog


def make_log(settings: Settings, redis: Redis) -> Log:
    if settings.log == "streams":
        return StreamLog(redis, settings.lease_seconds)
    return PartitionedLog(redis, settings.lease_seconds, settings.partition_seconds)
