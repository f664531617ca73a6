"""What a crash of Redis could cost, by its settings: said in one line at the start of whoever relies on it."""

import logging

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from asynckit.redis_client import describe

log = logging.getLogger(__name__)

COST_OF_NO_FILE = "appendonly is off: a crash of Redis loses all that came since its last snapshot"
COST_OF_FSYNC = {
    "everysec": "appendfsync is everysec: a power cut loses the last second or two; a killed Redis nothing",
    "no": "appendfsync is no: a power cut loses what the kernel has not written; a killed Redis nothing",
}


async def shortcomings(redis: Redis) -> list[str]:
    """What could get lost in spite of our care, one reason each; [] when nothing. Raises RedisError.

    A managed Redis may keep its settings to itself: that is said too.
    """
    try:
        wanted = ("appendonly", "appendfsync", "maxmemory-policy")
        settings = {name: (await redis.config_get(name)).get(name) for name in wanted}
    except ResponseError as error:
        return [f"its settings are not ours to read ({error}): ask whether writes are on disk before they are answered"]
    found = []
    if settings["appendonly"] == "no":
        found.append(COST_OF_NO_FILE)
    elif cost := COST_OF_FSYNC.get(settings["appendfsync"] or ""):
        found.append(cost)
    if settings["maxmemory-policy"] not in (None, "noeviction"):
        found.append(f"maxmemory-policy is {settings['maxmemory-policy']}: a full Redis throws away waiting work")
    return found


async def warn_if_not_durable(redis: Redis) -> None:
    """One line in the log if a crash could cost something, or if Redis cannot be reached."""
    try:
        found = await shortcomings(redis)
    except RedisError as error:
        where = redis.connection_pool.connection_kwargs
        place = where.get("path") or f"{where.get('host')}:{where.get('port', 6379)}"
        log.warning("cannot reach Redis at %s: %s", place, describe(error))
        return
    if found:
        log.warning("Redis may lose what it has accepted: %s", "; ".join(found))
