"""The event log for tests: append, claim and commit numbered events, and make Redis fail."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import redis as blocking
from redis.exceptions import ConnectionError

from eventlog.events import Event
from tests.support.programs import a_name
from tests.support.servers import Valkey

LEASE = 10.0  # seconds, for tests that do not wait for the end of a lease


def an_event(number: int = 0, event_id: str | None = None) -> Any:
    return Event(event_id or f"<{a_name()}@example.com>", "email_requested", {"number": number})


def numbers(claimed: list[Any]) -> list[int]:
    return [one.event().data["number"] for one in claimed]


async def append(log: Any, *range_: int) -> list[str]:
    """Append events with these numbers, one after the other, and return their positions."""
    return [await log.append(an_event(number)) for number in range(*range_)]


async def commit(log: Any, claimed: list[Any]) -> list[bool]:
    return list(await asyncio.gather(*[log.commit(one) for one in claimed]))


async def claim_all(log: Any, consumer: str, limit: int = 7) -> list[int]:
    """Claim and commit until there are no events; return the numbers in the order of the claims."""
    found = []
    while claimed := await log.claim(consumer, limit):
        assert await commit(log, claimed) == [True] * len(claimed)
        found += numbers(claimed)
    return found


async def claim_when_due(log: Any, consumer: str, limit: int = 10) -> list[Any]:
    claimed: list[Any] = await log.claim(consumer, limit, wait=10.0)
    assert claimed, "no event within 10 s"
    return claimed


@contextmanager
def full(valkey: Valkey) -> Iterator[None]:
    valkey.client.config_set("maxmemory", "1")
    try:
        yield
    finally:
        valkey.client.config_set("maxmemory", "0")


def remember(valkey: Valkey) -> Callable[[], None]:
    """Return a function that restores the data of this moment, as if a crash had lost the end of Redis's file."""
    client = blocking.Redis.from_url(valkey.url, protocol=2)
    keys = {key: (client.dump(key), max(0, client.pttl(key))) for key in client.scan_iter()}

    def restore() -> None:
        client.flushall()
        for key, (value, ttl) in keys.items():
            client.restore(key, ttl, value or b"")
        client.close()

    return restore


def lose_an_answer(log: Any, script: str) -> None:
    """Let Redis run the next script of this name, and raise ConnectionError instead of returning the answer."""
    run, lose = log._scripts.run, True

    async def run_and_lose(name: str, *arguments: Any) -> Any:
        nonlocal lose
        answer = await run(name, *arguments)
        if lose and name in (script, f"stream_{script}"):
            lose = False
            raise ConnectionError("the answer is lost")
        return answer

    log._scripts.run = run_and_lose
