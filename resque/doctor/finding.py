"""A problem that the doctor has found, and its repair."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import WatchError

Repair = Callable[[], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Finding:
    what: str
    key: str
    remedy: str = ""
    """What the repair would do; "" if an operator must decide."""
    repair: Repair | None = field(default=None, repr=False, compare=False)
    """Repairs it. Returns False if the keys have changed in the meantime; then nothing was done."""


async def done(pipeline: Any) -> bool:
    """Execute a transaction; False if a watched key has changed."""
    try:
        await pipeline.execute()
    except WatchError:
        return False
    return True


def things(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
