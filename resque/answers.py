"""A key of the wrong type: any program may have written it."""

from collections.abc import Awaitable
from typing import TypeVar

from redis.exceptions import ResponseError

T = TypeVar("T")


async def or_empty(answer: Awaitable[T], empty: T) -> T:
    """The answer; `empty` if the key has another type."""
    try:
        return await answer
    except ResponseError as error:
        if str(error).startswith("WRONGTYPE"):
            return empty
        raise
