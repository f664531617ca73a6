"""How late the event loop is: a timer that measures by how much it fires too late, smoothed."""

import asyncio
import math
from typing import Self

from asynckit.tasks import end_tasks, keep_running

SAMPLE_SECONDS = 0.02
SMOOTHING_SECONDS = 0.1  # the time constant of an exponential average: a single hiccup is soon forgotten


class LoopDelay:
    """`seconds` is the smoothed delay. Other things that want to run wait about as long."""

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
        """A timer of SAMPLE_SECONDS has taken so long. A sample weighs as much as the time that it covers."""
        late = max(0.0, elapsed - SAMPLE_SECONDS)
        self.seconds += (1 - math.exp(-elapsed / SMOOTHING_SECONDS)) * (late - self.seconds)
