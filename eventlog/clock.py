"""Redis's clock, which all times of the log come from: the clocks of workers and web servers may differ."""

from .bytes_redis import BytesRedis


async def redis_now(redis: BytesRedis) -> float:
    """Unix seconds. Raises RedisError."""
    seconds, microseconds = await redis.time()
    return float(seconds) + float(microseconds) / 1e6
