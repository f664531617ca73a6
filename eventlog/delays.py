"""Delays: when an event that failed is handled again, for pauses that are longer than a lease can hold.

    eventlog:due:{NAME}         zset   position -> unix seconds (Redis's clock) at which the event is due
    eventlog:failures:{NAME}    hash   position -> how often the event has failed

A worker that claims an event before it is due puts it back. Both keys expire after two days without a new delay.
"""

from collections.abc import Sequence

from redis.asyncio import Redis

from asynckit.bytes_redis import bytes_redis, redis_time

from .events import Claimed

DELAYS_SECONDS = 2 * 86_400


def delay_keys(consumer: str) -> tuple[str, str]:
    return f"eventlog:due:{{{consumer}}}", f"eventlog:failures:{{{consumer}}}"


class Delays:
    """Every method raises RedisError."""

    def __init__(self, redis: Redis) -> None:
        self._redis = bytes_redis(redis)

    async def add(self, claimed: Claimed, seconds: float, failures: int) -> None:
        due, counts = delay_keys(claimed.consumer)
        when = await redis_time(self._redis) + seconds
        async with self._redis.pipeline(transaction=True) as both:
            both.zadd(due, {claimed.position: when}).hset(counts, claimed.position, failures)
            both.expire(due, DELAYS_SECONDS).expire(counts, DELAYS_SECONDS)
            await both.execute()

    async def of(self, consumer: str, claimed: Sequence[Claimed]) -> dict[str, tuple[float, int]]:
        """For each of these positions that is delayed: the seconds until it is due, and how often it has failed."""
        if not claimed:
            return {}
        due, counts = delay_keys(consumer)
        positions = [one.position for one in claimed]
        async with self._redis.pipeline(transaction=False) as both:
            both.zmscore(due, positions).hmget(counts, positions)
            dues, failures = await both.execute()
        now = await redis_time(self._redis)
        found = zip(positions, dues, failures, strict=True)
        return {position: (when - now, int(failed or 0)) for position, when, failed in found if when is not None}

    async def remove(self, claimed: Sequence[Claimed]) -> None:
        """Forget the delays of these events, which are done."""
        if positions := [one.position for one in claimed if one.attempts > 1]:
            due, counts = delay_keys(claimed[0].consumer)
            async with self._redis.pipeline(transaction=False) as both:
                both.zrem(due, *positions).hdel(counts, *positions)
                await both.execute()

    async def clear(self, consumer: str) -> None:
        await self._redis.delete(*delay_keys(consumer))

    async def next_attempt(self, consumer: str) -> float | None:
        """Seconds until the next delayed event is due; None if no event is delayed."""
        found = await self._redis.zrange(delay_keys(consumer)[0], 0, 0, withscores=True)
        return max(0.0, float(found[0][1]) - await redis_time(self._redis)) if found else None
