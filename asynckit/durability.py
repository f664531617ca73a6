"""Warns, at the start of a process, about settings of Redis that could lose data in a crash."""

import logging

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from asynckit.cluster_client import ClusterRedis
from asynckit.redis_client import describe

log = logging.getLogger(__name__)

COST_OF_NO_FILE = "appendonly is off: a crash of Redis loses all writes since its last snapshot"
COST_OF_FSYNC = {
    "everysec": "appendfsync is everysec: a power cut loses the last second or two; killing Redis loses nothing",
    "no": "appendfsync is no: a power cut loses what the kernel has not written; killing Redis loses nothing",
}


async def shortcomings(redis: Redis) -> list[str]:
    """The settings with which Redis could lose data, one sentence each; [] if there are none. Raises RedisError.

    A managed Redis may refuse to show its settings; that is reported, too.
    """
    try:
        wanted = ("appendonly", "appendfsync", "maxmemory-policy")
        settings = {name: (await redis.config_get(name)).get(name) for name in wanted}
    except ResponseError as error:
        return [
            f"its settings cannot be read ({error}): ask your provider whether a write is on disk before its answer"
        ]
    found = []
    if settings["appendonly"] == "no":
        found.append(COST_OF_NO_FILE)
    elif cost := COST_OF_FSYNC.get(settings["appendfsync"] or ""):
        found.append(cost)
    if settings["maxmemory-policy"] not in (None, "noeviction"):
        found.append(f"maxmemory-policy is {settings['maxmemory-policy']}: a full Redis discards waiting work")
    return found


async def warn_if_not_durable(redis: Redis) -> None:
    """Log one warning if a crash could lose data, or if Redis cannot be reached. In a cluster, asks every primary."""
    try:
        nodes = await redis.primaries() if isinstance(redis, ClusterRedis) else [redis]
        found = dict.fromkeys([line for node in nodes for line in await shortcomings(node)])
    except RedisError as error:
        where = redis.connection_pool.connection_kwargs
        place = where.get("path") or f"{where.get('host')}:{where.get('port', 6379)}"
        log.warning("cannot reach Redis at %s: %s", place, describe(error))
        return
    if found:
        log.warning("Redis may lose what it has accepted: %s", "; ".join(found))
