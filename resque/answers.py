"""Answers of Redis that several files need: its clock, and a key of the wrong type."""

from collections.abc import Awaitable
from typing import Any, TypeVar

from redis.exceptions import ResponseError

T = TypeVar("T")


async def redis_time(redis: Any) -> float:
    """Unix seconds by Redis's clock."""
    seconds, microseconds = await redis.time()
    return float(seconds) + float(microseconds) / 1e6


async def or_empty(answer: Awaitable[T], empty: T) -> T:
    """The answer; `empty` if the key has another type. Any program may have written it."""
    try:
        return await answer
    except ResponseError as error:
        if "WRONGTYPE" in str(error):
            return empty
        raise
