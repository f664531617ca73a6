"""The event log for tests: append, claim and commit events by number, and faults of its Redis."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import redis as blocking
from redis.exceptions import ConnectionError

from eventlog.events import Event
from tests.support.programs import Valkey, a_name

LEASE = 10.0  # seconds, for tests that do not wait for the end of a lease


def an_event(number: int = 0, event_id: str | None = None) -> Any:
    return Event(event_id or f"<{a_name()}@example.com>", "email_requested", {"number": number})


def numbers(claimed: list[Any]) -> list[int]:
    return [one.event().data["number"] for one in claimed]


async def append(log: Any, *range_: int) -> list[str]:
    """Append events with these numbers, one after the other. Returns their positions."""
    return [await log.append(an_event(number)) for number in range(*range_)]


async def commit(log: Any, claimed: list[Any]) -> list[bool]:
    return list(await asyncio.gather(*[log.commit(one) for one in claimed]))


async def claim_all(log: Any, consumer: str, limit: int = 7) -> list[int]:
    """Claim and commit until no event is left. Returns the numbers in the order of the claims."""
    found = []
    while claimed := await log.claim(consumer, limit):
        assert await commit(log, claimed) == [True] * len(claimed)
        found += numbers(claimed)
    return found


async def claim_when_due(log: Any, consumer: str, limit: int = 10) -> list[Any]:
    claimed: list[Any] = await log.claim(consumer, limit, wait=10.0)
    assert claimed, "nothing within 10 s"
    return claimed


@contextmanager
def full(valkey: Valkey) -> Iterator[None]:
    valkey.client.config_set("maxmemory", "1")
    try:
        yield
    finally:
        valkey.client.config_set("maxmemory", "0")


def remember(valkey: Valkey) -> Callable[[], None]:
    """Returns a function that resets Redis to its state now, like a crash that loses the end of its file."""
    client = blocking.Redis.from_url(valkey.url, protocol=2)
    keys = {key: (client.dump(key), max(0, client.pttl(key))) for key in client.scan_iter()}

    def take_back() -> None:
        client.flushall()
        for key, (value, ttl) in keys.items():
            client.restore(key, ttl, value or b"")
        client.close()

    return take_back


def lose_an_answer(log: Any, script: str) -> None:
    """Redis runs the next script of this name, but its caller gets a ConnectionError instead of the answer."""
    run, lose = log._scripts.run, True

    async def run_and_lose(name: str, *arguments: Any) -> Any:
        nonlocal lose
        answer = await run(name, *arguments)
        if lose and name in (script, f"stream_{script}"):
            lose = False
            raise ConnectionError("the answer is lost")
        return answer

    log._scripts.run = run_and_lose
