"""The counts of a consumer: written a moment later, and complete."""

import asyncio
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError, ResponseError

from asynckit.redis_client import redis_client
from eventlog import counts, scripts
from tests.support.event_log import append, claim_when_due, lose_an_answer
from tests.support.programs import LIMIT, until
from tests.support.servers import Valkey
from tests.support.tasks import ignore_first_cancellation


class FakeScripts:
    """Takes counts or refuses them."""

    def __init__(self) -> None:
        self.taken: list[tuple[Any, ...]] = []
        self.refuses = self.hangs = False

    async def run(self, name: str, keys: list[str], *words: Any) -> None:
        if self.refuses:
            raise ResponseError("not now")
        self.taken.append((*keys, *words))
        if self.hangs:
            await ignore_first_cancellation()


async def test_a_full_redis_takes_counts(valkey: Valkey) -> None:
    async with redis_client(valkey.url) as redis:
        counted = counts.Counts(redis, scripts.Scripts(redis))
        valkey.client.config_set("maxmemory", "1")
        try:
            counted.add("email", "handled", 2)
            counted.add("email", "retried", 1)
            await counted.close()
            assert (await counted.of("email")) == {
                "handled": 2,
                "unwanted": 0,
                "retried": 1,
                "overtaken": 0,
                "given_up": 0,
            }
        finally:
            valkey.client.config_set("maxmemory", "0")


async def test_refused_counts_are_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "RETRY_SECONDS", 0.01)
    fake = FakeScripts()
    counted = counts.Counts(cast(Any, None), cast(Any, fake))
    fake.refuses = True
    counted.add("email", "handled", 2)
    assert not await counted.write()
    counted.add("email", "handled", 3)
    fake.refuses = False
    await until(lambda: fake.taken)
    assert fake.taken == [("eventlog:counts:{email}", "handled", 5)]


async def test_close_returns_even_if_a_cancellation_is_swallowed() -> None:
    fake = FakeScripts()
    counted = counts.Counts(cast(Any, None), cast(Any, fake))
    fake.hangs = True
    counted.add("email", "handled", 1)
    await until(lambda: fake.taken)
    async with asyncio.timeout(LIMIT):
        await counted.close()


async def test_given_up_is_exact_even_if_the_worker_dies_at_once(valkey: Valkey, new_log: Any) -> None:
    """Also if the answer is lost, if the next worker parks the event again, and if a retried event is parked again."""
    log, dying = await new_log(lease=3.0), await new_log(lease=0.05)  # in Streams, that of the next worker counts
    await append(log, 1)
    [first] = await dying.claim("email", 1)
    lose_an_answer(dying, "park")
    with pytest.raises(ConnectionError):
        await dying.park(first, "no such mailbox")
    assert await given_up(valkey) == 1
    [again] = await claim_when_due(log, "email")
    assert await log.park(again, "no such mailbox")
    assert await given_up(valkey) == 1
    await log.unpark("email")
    [retried] = await claim_when_due(log, "email")
    assert await log.park(retried, "no such mailbox")
    assert not await log.park(retried, "no such mailbox"), "its lease has ended"
    assert await given_up(valkey) == 2


async def given_up(valkey: Valkey) -> int:
    return int(valkey.client.hget("eventlog:counts:{email}", "given_up") or 0)
