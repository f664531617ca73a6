"""Events that fail, and processes that die, on every engine of the log."""

import asyncio
from typing import Any

import pytest
from redis.exceptions import ConnectionError

from asynckit.redis_client import blocking_redis_client
from eventlog import events as module
from eventlog import streams
from tests.support.event_log import (
    append,
    claim_all,
    claim_when_due,
    commit,
    lose_an_answer,
    numbers,
)
from tests.support.programs import LIMIT, until
from tests.support.servers import Valkey


async def test_claims_whose_answers_are_lost_are_repeated_at_once_and_not_counted(new_log: Any) -> None:
    log, other = await new_log(), await new_log()
    await append(log, 25)
    theirs: list[Any] = []
    for _ in range(6):
        lose_an_answer(log, "claim")
        with pytest.raises(ConnectionError):
            await log.claim("email", 4)
        theirs += await other.claim("email", 2)
    ours: list[Any] = []
    while claimed := await log.claim("email", 10):
        ours += claimed
    assert sorted(numbers(ours + theirs)) == list(range(25))
    assert {(one.attempts, one.alone) for one in ours + theirs} == {(1, False)}
    assert all([*await commit(log, ours), *await commit(other, theirs)])


async def test_a_process_that_claims_its_own_event_again_does_not_count_an_attempt(new_log: Any) -> None:
    """It was suspended for longer than its lease, for example. It is alive, so no event has killed it."""
    log = await new_log(lease=0.1)
    await append(log, 1)
    for _ in range(4):
        [one] = await claim_when_due(log, "email")
        assert (one.attempts, one.alone) == (1, False)
    await log.park(one, "later")
    await log.unpark("email")
    [old] = await claim_when_due(log, "email")
    [new] = await claim_when_due(log, "email")
    assert (old.attempts, new.attempts, new.parked) == (1, 1, True)
    assert not await log.commit(old), "each claim of a parked event has a token of its own too"
    assert await log.commit(new)


async def test_an_event_that_may_have_killed_its_workers_is_claimed_alone(new_log: Any) -> None:
    """So each further crash counts an attempt for one event only."""
    await append(await new_log(), 4)
    for _ in range(2):  # two owners die while they hold all four events
        log = await new_log(lease=0.05)
        claimed: list[Any] = []
        while len(claimed) < 4:
            claimed += await log.claim("email", 10, wait=1.0)
    log, seen = await new_log(lease=0.5), []
    for _ in range(4):
        [one] = await claim_when_due(log, "email")
        assert (one.alone, one.attempts) == (True, 3)
        seen += numbers([one])
        await log.commit(one)
    assert sorted(seen) == [0, 1, 2, 3]


async def test_an_event_that_may_have_killed_its_workers_is_alone_again_after_it_is_given_back(new_log: Any) -> None:
    await append(await new_log(), 1)
    for _ in range(2):
        await claim_when_due(await new_log(lease=0.05), "email")
    log = await new_log(lease=0.5)
    for _ in range(4):
        [one] = await claim_when_due(log, "email")
        assert (one.attempts, one.alone) == (3, True)
        assert await log.put_back(one, 0.0, tried=False)


async def test_leases_of_a_dead_process_end_although_a_live_one_holds_many(new_log: Any, valkey: Valkey) -> None:
    alive, dead, third = await new_log(), await new_log(lease=1.0), await new_log(lease=1.0)
    await append(alive, 320)
    held: list[Any] = []
    while len(held) < 300:
        held += await alive.claim("email", 100)
    left = {one.position for one in await dead.claim("email", 10)}
    client = blocking_redis_client(valkey.url)
    async with asyncio.timeout(LIMIT):
        while left:
            await asyncio.to_thread(alive.extend, client, held)
            left -= {one.position for one in await third.claim("email", 12, wait=0.1)}
    client.close()


async def test_an_event_that_is_put_back_comes_again_after_its_pause_and_counts_an_attempt(log: Any) -> None:
    await append(log, 3)
    [first, *others] = await log.claim("email", 3)
    await commit(log, others)
    assert await log.put_back(first, 1.0)
    assert await log.claim("email", 3) == []
    [again] = await claim_when_due(log, "email")
    assert (again.position, again.attempts) == (first.position, 2)
    assert await log.commit(again)


async def test_commits_and_retries_are_counted_a_moment_later(log: Any) -> None:
    await append(log, 3)
    claimed = await log.claim("email", 3)
    await commit(log, claimed[1:])
    await log.put_back(claimed[0], 60.0)

    async def counted() -> bool:
        lag = await log.lag("email")
        return (lag.handled, lag.retried) == (2, 1)

    await until(counted)


async def test_an_event_that_is_given_back_unfinished_comes_at_once_and_counts_no_attempt(log: Any) -> None:
    await append(log, 1)
    for _ in range(5):
        [one] = await claim_when_due(log, "email")
        assert (one.attempts, one.alone) == (1, False)
        assert await log.put_back(one, 0.0, tried=False)


async def test_a_parked_event_does_not_block_others_and_can_be_retried(log: Any) -> None:
    await append(log, 12)
    [first, *others] = await log.claim("email", 3)
    assert await log.park(first, "no such mailbox <img src=x>")
    await commit(log, others)
    assert await claim_all(log, "email") == list(range(3, 12)), "the other events are handled"
    [parked] = await log.parked("email")
    assert (parked.position, parked.attempts, parked.again) == (first.position, 1, False)
    assert parked.reason == "no such mailbox <img src=x>"
    lag = await log.lag("email")
    assert (lag.waiting, lag.pending, lag.parked) == (0, 0, 1)
    assert await log.parked("audit") == [], "it is parked for this consumer only"
    # It stays parked until it has been handled.
    assert await log.unpark("email", parked.position) == 1
    [again] = await claim_when_due(log, "email")
    assert (numbers([again]), again.attempts, again.position) == ([0], 1, first.position)
    assert [one.again for one in await log.parked("email")] == [True]
    assert await log.park(again, "still no such mailbox")
    assert [one.reason for one in await log.parked("email")] == ["still no such mailbox"]
    assert await log.unpark("email") == 1
    [again] = await claim_when_due(log, "email")
    assert await log.commit(again)
    assert await log.parked("email") == []


async def test_an_invalid_entry_raises_bad_event_and_can_be_parked(log: Any, valkey: Valkey) -> None:
    await append(log, 1)
    for invalid in (b"", b"\x80\x04pickle", b"no json", b"[]", b'{"id": 1}', b"[" * 10_000, b"x" * 1_000_000):
        if isinstance(log, streams.StreamLog):
            valkey.client.xadd(streams.STREAM, {"e": invalid})
        else:
            valkey.client.rpush(f"eventlog:partitions:{{{log._appender._open}}}", invalid)
    await append(log, 1, 2)
    claimed: list[Any] = []
    while more := await log.claim("email", 100):
        claimed += more
    good, bad = [], []
    for one in claimed:
        try:
            good.append(one.event().data["number"])
        except module.BadEvent:
            bad.append(one)
            assert await log.park(one, "invalid")
    assert good == [0, 1]
    assert len(bad) == len(await log.parked("email")) == 7
