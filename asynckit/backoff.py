"""The pause between a failed attempt and the next one."""

import random
from collections.abc import Callable, Sequence

BASE_SECONDS = 1.0
CAP_SECONDS = 60.0

Pause = Callable[[int], float]
"""The pause in seconds after the failed attempt number n (1, 2, …)."""


def scheduled_pause(
    pauses: Sequence[float], attempt: int, uniform: Callable[[float, float], float] = random.uniform
) -> float:
    """The pause in seconds after the failed attempt number `attempt`: the one of that number, or the last.

    The jitter only lengthens it, by up to a quarter, because a mail server that greylists requires a minimum pause.
    """
    return pauses[min(attempt, len(pauses)) - 1] * uniform(1.0, 1.25)


def backoff_seconds(
    attempt: int,
    base: float = BASE_SECONDS,
    cap: float = CAP_SECONDS,
    uniform: Callable[[float, float], float] = random.uniform,
) -> float:
    """The pause in seconds after the failed attempt number `attempt` (1, 2, …).

    Exponential backoff with full jitter: uniform between 0 and min(cap, base · 2^(attempt - 1)). Without jitter,
    attempts that failed together would be retried together. Source: M. Brooker, "Exponential Backoff And Jitter", AWS
    Architecture Blog, 2015.
    """
    return uniform(0.0, min(cap, base * 2.0 ** min(attempt - 1, 60)))
