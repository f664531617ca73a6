"""The heartbeat runs in its own thread, not on the event loop that it watches."""

import asyncio
import threading
import time

import pytest
from redis.exceptions import ConnectionError

from asynckit import heartbeat as heartbeat_module
from asynckit.heartbeat import Heartbeat

LIMIT = 20.0


class Beats:
    """Counts beats; the first `failing` ones raise an error."""

    def __init__(self, failing: int = 0) -> None:
        self.count = 0
        self.reached = threading.Condition()
        self._failing = failing

    def __call__(self) -> None:
        with self.reached:
            self.count += 1
            self.reached.notify_all()
        if self.count <= self._failing:
            raise ConnectionError("gone")

    def wait_for(self, count: int) -> None:
        """Block the current thread until then."""
        with self.reached:
            assert self.reached.wait_for(lambda: self.count >= count, LIMIT)


async def test_the_heartbeat_continues_while_the_event_loop_is_blocked() -> None:
    beats = Beats()
    async with Heartbeat(beats, 0.01):
        beats.wait_for(5)


async def test_the_heartbeat_survives_an_outage_of_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat_module, "RETRY_SECONDS", 0.01)
    beats = Beats(failing=3)
    async with Heartbeat(beats, 0.01):
        beats.wait_for(6)


async def test_the_heartbeat_stops_when_the_event_loop_hangs() -> None:
    beats = Beats()
    async with Heartbeat(beats, 0.01, hung_seconds=1.0):
        beats.wait_for(1)
        while True:
            before = beats.count
            time.sleep(0.2)  # noqa: ASYNC251  it hangs
            if beats.count == before:
                break


async def test_the_heartbeat_ends_its_thread() -> None:
    async with Heartbeat(Beats(), 0.01) as heartbeat:
        assert heartbeat._thread.is_alive()
        await asyncio.sleep(0)
    assert not heartbeat._thread.is_alive()
