"""The delay of the event loop: how much later than planned a timer fires, smoothed."""

import asyncio
import math
from typing import Self

from asynckit.tasks import end_tasks, keep_running

SAMPLE_SECONDS = 0.02
SMOOTHING_SECONDS = 0.1  # the time constant of the exponential average: one slow callback soon loses its weight


class LoopDelay:
    """`seconds` is the smoothed delay: about how long a ready task waits until it runs."""

    def __init__(self) -> None:
        self.seconds = 0.0

    async def __aenter__(self) -> Self:
        self._task = keep_running(self._measure, "measuring the delay of the event loop")
        return self

    async def __aexit__(self, *_: object) -> None:
        await end_tasks([self._task])

    async def _measure(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            started = clock()
            await asyncio.sleep(SAMPLE_SECONDS)
            self.add(clock() - started)

    def add(self, elapsed: float) -> None:
        """Add a sample: a timer of SAMPLE_SECONDS took `elapsed` seconds. Its weight is the time that it covers."""
        late = max(0.0, elapsed - SAMPLE_SECONDS)
        self.seconds += (1 - math.exp(-elapsed / SMOOTHING_SECONDS)) * (late - self.seconds)
