"""Events that may have killed their worker: a consumer handles each one while no consumer of its worker holds another.

A killed worker leaves all events that it held unfinished. From its third claim on, an event is claimed with `alone`.
Only then is it certain which event caused a crash.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from .events import Claimed

CRASH_LIMIT = 5  # an event is parked when this many workers have died while handling it
ANSWER_SECONDS = 0.1  # a claim that was sent at the same time has its answer by then


class Suspects:
    """Those of one consumer. `neighbours` are those of the other consumers of this worker."""

    def __init__(self, held: Mapping[int, Claimed], changed: asyncio.Event, attempts: int) -> None:
        """`held`: the events that the consumer holds. `changed` is set when it should look again."""
        self.neighbours: Sequence[Suspects] = ()
        self._held = held
        self._changed = changed
        self._crashes = min(max(attempts, 3), CRASH_LIMIT)  # at least 3: the third claim is the first one alone
        self._claiming = False
        self._task: asyncio.Task[None] | None = None

    def reason_to_park(self, claimed: Claimed, failures: int) -> str:
        """Not empty if too many workers have died with this event."""
        unfinished = claimed.attempts - 1
        if unfinished - failures < self._crashes:
            return ""
        return f"claimed {unfinished} times and never finished: it may kill its worker"

    def isolate(self, task: asyncio.Task[None]) -> None:
        """Until this task ends, the consumer claims no events and its neighbours hold none."""
        self._task = task

    @property
    def isolating(self) -> bool:
        return self._task is not None and not self._task.done()

    @property
    def neighbour_isolates(self) -> bool:
        return any(one.isolating for one in self.neighbours)

    @contextmanager
    def claiming(self) -> Iterator[None]:
        """During a claim, until its events are held or put back."""
        self._claiming = True
        try:
            yield
        finally:
            self._claiming = False
            self.tell()

    def tell(self) -> None:
        """Let this consumer look again, and its neighbours if one of them waits for another."""
        self._changed.set()
        for one in self.neighbours:
            if self._task is not None or one.isolating:
                one._changed.set()

    async def wait_until_alone(self, isolated: int) -> None:
        """Wait until this consumer holds only this number of events and its neighbours hold none.

        A neighbour's claim may have reached the server already. It puts back the events that it gets, but if this
        worker died before, the death would count for them. So wait for a claim that is about to return; a claim that
        finds no events takes longer.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._until(lambda: not any(one._claiming for one in self.neighbours))
        await self._until(lambda: len(self._held) <= isolated and not any(one._held for one in self.neighbours))

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()
