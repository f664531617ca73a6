"""Partitions that are trimmed, and a consumer that reads on after them."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from redis.exceptions import ConnectionError

from tests.support.event_log import an_event, append, claim_all, commit, numbers, remember
from tests.support.programs import LIMIT
from tests.support.servers import Valkey

HOUR = 3600
ENGINES = ["lua"]


@pytest.fixture
def new_log(new_log: Any) -> Callable[..., Any]:
    return partial(new_log, partition_events=5)


# Partitions that are trimmed, and whose tombstones have expired


async def seal_and_die(log: Any) -> None:
    """Append five events and seal the partition, but do not open the next one."""
    await append(log, 5)
    run = log._scripts.run

    async def run_until_open(name: str, *arguments: Any) -> Any:
        if name == "open":
            raise ConnectionError("killed")
        return await run(name, *arguments)

    log._scripts.run = run_until_open
    with pytest.raises(ConnectionError):
        await append(log, 5, 6)


def a_day_passes(valkey: Valkey, clock: Callable[[float], None]) -> None:
    """Delete the tombstones, as if their time to live had passed."""
    clock(25 * HOUR)
    for key in valkey.client.scan_iter("eventlog:*"):
        if valkey.client.ttl(key) > 0:
            valkey.client.delete(key)


async def test_an_idle_producer_does_not_restore_a_trimmed_partition(
    new_log: Any, valkey: Valkey, clock: Callable[[float], None]
) -> None:
    idle, busy, consumer = await new_log(), await new_log(), await new_log()
    await append(idle, 1)
    await append(busy, 1, 30)
    await claim_all(consumer, "email")
    assert (await consumer.trim(older_than=0)).events == 25
    await append(idle, 30, 31)
    assert [partition.trimmed for partition in await consumer.partitions()] == [False, False]
    a_day_passes(valkey, clock)
    await append(busy, 31, 100)
    assert len(await claim_all(consumer, "email")) == 70
    assert (await consumer.trim(larger_than=0)).events == 71
    assert len(await consumer.partitions()) == 1


async def test_a_producer_that_was_suspended_does_not_open_a_deleted_partition_again(
    new_log: Any, valkey: Valkey, clock: Callable[[float], None]
) -> None:
    """It was about to open the partition that a seal had named. A consumer would wait in that partition forever."""
    suspended, busy, consumer = await new_log(), await new_log(), await new_log()
    await append(suspended, 5)
    run, asleep, wake = suspended._scripts.run, asyncio.Event(), asyncio.Event()

    async def run_late(name: str, *arguments: Any) -> Any:
        if name == "open":
            asleep.set()
            await wake.wait()
        return await run(name, *arguments)

    suspended._scripts.run = run_late
    appending = asyncio.ensure_future(suspended.append(an_event(30)))
    await asleep.wait()
    await append(busy, 5, 30)
    assert len(await claim_all(consumer, "email")) == 30
    assert (await consumer.trim(older_than=0)).events == 25
    a_day_passes(valkey, clock)
    wake.set()
    await appending
    assert await claim_all(consumer, "email") == [30]
    await append(busy, 31, 60)
    assert await claim_all(await new_log(), "newcomer") == list(range(25, 60))
    await consumer.replay("email", "beginning")
    assert await claim_all(consumer, "email") == list(range(25, 60))
    assert (await consumer.trim(larger_than=0)).events == 30
    states = list(valkey.client.scan_iter("eventlog:state:*"))
    assert all(len(valkey.client.hgetall(key)) > 1 for key in states), "no empty partition was opened"


async def test_a_trim_works_after_one_that_was_killed_half_way(
    new_log: Any, valkey: Valkey, clock: Callable[[float], None]
) -> None:
    log, killed = await new_log(), await new_log()
    await append(log, 30)
    await claim_all(log, "email")

    async def zrem(*_: Any) -> None:
        raise ConnectionError("killed")

    killed._redis.zrem = zrem
    with pytest.raises(ConnectionError):
        await killed.trim(older_than=0)
    a_day_passes(valkey, clock)
    assert (await log.trim(older_than=0)).events == 20
    assert await claim_all(log, "newcomer") == list(range(25, 30))


async def test_a_consumer_whose_partition_was_deleted_continues_at_the_beginning_of_the_log(
    new_log: Any, valkey: Valkey, clock: Callable[[float], None]
) -> None:
    log, consumer = await new_log(), await new_log()
    await append(log, 30)
    await commit(consumer, await consumer.claim("email", 3))
    await log.trim(older_than=0, force=True)
    a_day_passes(valkey, clock)
    assert await claim_all(consumer, "email") == list(range(25, 30))
    await consumer.claim("email", 1, wait=0.1)
    assert (await log.lag("email")).overtaken == 25, "includes the three committed events: the log has forgotten them"


async def test_the_last_partition_is_not_trimmed_if_its_producer_died_between_seal_and_opening(
    new_log: Any,
) -> None:
    log = await new_log()
    await seal_and_die(await new_log())
    assert await claim_all(log, "email") == list(range(5))
    assert (await log.trim(older_than=0, force=True)).events == 0
    await append(log, 6, 12)
    assert await claim_all(log, "email") == list(range(6, 12))


# A consumer and its partitions


async def test_the_cursor_does_not_leave_a_partition_with_a_pending_event(new_log: Any, valkey: Valkey) -> None:
    log = await new_log()
    await append(log, 22)
    [first] = await log.claim("email", 1)
    number = first.position.partition("-")[0]
    await claim_all(log, "email")
    assert valkey.client.hget("eventlog:cursor:{email}", "partition") == number
    assert (await log.trim(older_than=0)).kept_for == "email"
    await log.commit(first)
    await log.claim("email", 1)
    assert int(str(valkey.client.hget("eventlog:cursor:{email}", "partition"))) > int(number)
    assert (await log.trim(older_than=0)).events == 20


async def test_after_redis_has_lost_its_last_writes_no_consumer_skips_the_partition_that_is_open_again(
    new_log: Any, valkey: Valkey
) -> None:
    """The consumer's partition does not exist any more, and the one before is open again."""
    log, consumer = await new_log(), await new_log()
    await append(log, 4)
    assert await claim_all(consumer, "email") == [0, 1, 2, 3]
    restore = remember(valkey)
    await append(log, 4, 6)
    assert await claim_all(consumer, "email") == [4, 5]
    restore()
    await append(log, 10, 12)
    found: list[int] = []
    while 11 not in found:
        claimed = await consumer.claim("email", 10, wait=2.0)
        await commit(consumer, claimed)
        found += numbers(claimed)
    assert found == [10, 11]
    assert await claim_all(await new_log(), "other") == [0, 1, 2, 3, 10, 11]


async def test_a_consumer_waits_for_a_partition_that_a_seal_names_and_that_is_not_open(new_log: Any) -> None:
    log = await new_log()
    await seal_and_die(await new_log())
    assert numbers(await asyncio.wait_for(log.claim("email", 10), LIMIT)) == list(range(5))
    assert await asyncio.wait_for(log.claim("email", 10), LIMIT) == []
    await append(log, 6, 12)
    assert await claim_all(log, "email") == list(range(6, 12))


async def test_the_log_starts_again_in_a_redis_that_was_emptied(new_log: Any, valkey: Valkey) -> None:
    log, consumer = await new_log(), await new_log()
    await append(log, 7)
    await claim_all(consumer, "email")
    valkey.client.flushall()
    await append(log, 7, 20)
    consumer._reader_of["email"].look_now()
    found: list[Any] = []
    while len(found) < 13:
        found += await consumer.claim("email", 20, wait=2.0)
    assert numbers(found) == list(range(7, 20))
