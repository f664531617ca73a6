"""Appending to the log, and consuming from it, on every engine: partitions with Lua, Redis Streams, and JetStream."""

import asyncio
import random
import time
from typing import Any

import pytest
import redis as blocking
from redis.exceptions import ConnectionError

from asynckit.redis_client import blocking_redis_client
from eventlog import events as module
from tests.support.event_log import (
    LEASE,
    an_event,
    append,
    claim_all,
    claim_when_due,
    commit,
    lose_an_answer,
    numbers,
    remember,
)
from tests.support.programs import LIMIT
from tests.support.servers import Valkey

Event = module.Event


# Appending


async def test_events_are_claimed_in_the_order_of_the_appends_and_their_positions_grow(log: Any) -> None:
    positions = await append(log, 25)
    assert sorted(positions, key=module.read_position) == positions
    assert len(set(positions)) == 25
    claimed = await log.claim("email", 5)
    assert [one.position for one in claimed] == positions[:5]
    assert numbers(claimed) + await claim_all(log, "email") == list(range(25))


async def test_a_claimed_event_has_the_appended_data_and_the_time_of_the_server(log: Any) -> None:
    data = {"to": "jörg@bücher.example", "subject": '"\\ <img src=x onerror=alert(1)>', "text": "a\nb\u2028 \x00"}
    await log.append(Event("<1@x>", "something_happened", data))
    [claimed] = await log.claim("email", 10)
    event = claimed.event()
    assert (event.id, event.name, event.data) == ("<1@x>", "something_happened", data)
    assert abs(event.at - time.time()) < LIMIT


async def test_appending_the_same_id_again_returns_the_first_position(log: Any, new_log: Any) -> None:
    first = await log.append(an_event(1, "<same@x>"))
    others = await append(log, 2, 30)
    another_process = await new_log()
    assert await another_process.append(an_event(1, "<same@x>")) == first
    together = await asyncio.gather(*[log.append(an_event(1, "<same@x>")) for _ in range(5)])
    assert set(together) == {first}
    new = set(await asyncio.gather(*[log.append(an_event(50, "<new@x>")) for _ in range(3)]))
    assert len(new) == 1
    assert not new & {first, *others}
    assert await claim_all(log, "email") == [*range(1, 30), 50]


async def test_concurrent_appends_share_a_script(log: Any, valkey: Valkey) -> None:
    await log.append(an_event())
    before = valkey.client.info("commandstats")["cmdstat_evalsha"]["calls"]
    positions = await asyncio.gather(*[log.append(an_event(n), new=True) for n in range(500)])
    assert positions == sorted(positions, key=module.read_position)
    assert valkey.client.info("commandstats")["cmdstat_evalsha"]["calls"] - before <= 6


@pytest.mark.parametrize("event_id", ["", "a b", "a\nb", "ä", "x" * 251])
async def test_an_invalid_id_is_refused(log: Any, event_id: str) -> None:
    with pytest.raises(ValueError, match="id"):
        log.append(Event(event_id, "x", {}))


async def test_an_append_whose_answer_was_lost_can_be_repeated(new_log: Any) -> None:
    """Meanwhile another producer has opened new partitions."""
    log, other = await new_log(partition_events=3), await new_log(partition_events=3)
    await append(log, 2)
    lose_an_answer(log, "append")
    event = an_event(2)
    with pytest.raises(ConnectionError):
        await log.append(event, new=True)
    await append(other, 3, 20)
    await log.append(event)
    assert await claim_all(log, "email") == list(range(20))


# Consumers


async def test_consumers_with_different_names_each_get_every_event(log: Any) -> None:
    await append(log, 15)
    assert await claim_all(log, "email") == list(range(15))
    assert await claim_all(log, "audit") == list(range(15))


async def test_a_new_consumer_starts_at_the_beginning(log: Any, new_log: Any) -> None:
    await append(log, 5)
    await claim_all(log, "email")
    await append(log, 5, 25)
    assert await claim_all(await new_log(), "newcomer") == list(range(25))


async def test_two_consumers_of_one_process_commit_and_renew_in_one_batch(log: Any, valkey: Valkey) -> None:
    await append(log, 3)
    email, audit = await log.claim("email", 3), await log.claim("audit", 3)
    client: blocking.Redis = blocking_redis_client(valkey.url)
    assert await asyncio.to_thread(log.extend, client, [*email, *audit]) == 0
    client.close()
    # The same events in one batch: a commit for one consumer does not count for the other.
    assert await commit(log, [email[0], audit[0], audit[1]]) == [True] * 3
    assert ((await log.lag("email")).pending, (await log.lag("audit")).pending) == (2, 1)
    assert await commit(log, [audit[2], email[2], email[1]]) == [True] * 3
    assert ((await log.lag("email")).pending, (await log.lag("audit")).pending) == (0, 0)


async def test_processes_with_the_same_consumer_name_share_the_events(new_log: Any) -> None:
    one, another = await new_log(), await new_log()
    await append(one, 30)
    found: list[int] = []
    for log in (one, another) * 10:
        claimed = await log.claim("email", 3)
        found += numbers(claimed)
        await commit(log, claimed)
    assert found == list(range(30))
    assert await one.claim("email", 3) == await another.claim("email", 3) == []


async def test_the_cursor_moves_after_the_commit_and_not_before(new_log: Any) -> None:
    log = await new_log()
    positions = await append(log, 25)
    claimed = await log.claim("email", 25)
    while len(claimed) < 25:
        claimed += await log.claim("email", 25)
    await commit(log, claimed[1:])
    lag = await log.lag("email")
    assert (lag.position, lag.waiting, lag.pending) == (positions[0], 0, 1), "all but the first are committed"
    await commit(log, claimed[:1])
    lag = await log.lag("email")
    assert (lag.waiting, lag.pending) == (0, 0)


async def test_the_events_of_a_dead_process_are_taken_over_when_their_leases_end(new_log: Any) -> None:
    dead, alive = await new_log(lease=2.0), await new_log(lease=2.0)
    await append(dead, 12)
    await dead.claim("email", 3)
    new = await alive.claim("email", 2)
    assert numbers(new) == [3, 4], "new events do not wait"
    claimed: list[Any] = []
    while len(claimed) < 3:
        await commit(alive, new)  # otherwise their leases would end too
        found = await claim_when_due(alive, "email", 3)
        new = [one for one in found if one.attempts == 1]
        claimed += [one for one in found if one.attempts == 2]
    assert sorted(numbers(claimed)) == [0, 1, 2]


async def test_only_the_holder_of_the_lease_can_commit(new_log: Any) -> None:
    suspended, other = await new_log(lease=0.2), await new_log(lease=LEASE)
    await append(suspended, 1)
    [mine] = await suspended.claim("email", 1)
    other._lease_ms, lease = 200, other._lease_ms  # on Streams, the lease of the new owner counts
    [theirs] = await claim_when_due(other, "email")
    other._lease_ms = lease
    assert not await suspended.commit(mine), "it was suspended for longer than its lease"
    assert not await suspended.put_back(mine, 0.0)
    assert not await suspended.park(mine, "late")
    assert await suspended.parked("email") == []
    assert (await other.lag("email")).pending == 1
    assert await other.commit(theirs)
    assert not await other.commit(theirs), "only one commit succeeds"
    assert await claim_all(other, "email") == []


async def is_fenced(log: Any, claimed: Any, client: blocking.Redis) -> bool:
    """Whether the log refuses everything from this claim."""
    extended = await asyncio.to_thread(log.extend, client, [claimed]) == 0
    accepted = [await log.commit(claimed), await log.put_back(claimed, 0.0), await log.park(claimed, "old")]
    return not extended and not any(accepted) and await log.parked("email") == []


async def test_a_claim_from_before_a_replay_is_refused_after_it(log: Any, valkey: Valkey) -> None:
    """One process claims the same event twice, each time as the first attempt."""
    await append(log, 1)
    [old] = await log.claim("email", 1)
    await log.replay("email", "beginning")
    [new] = await log.claim("email", 1)
    assert (old.position, old.attempts) == (new.position, new.attempts)
    client = blocking_redis_client(valkey.url)
    assert await is_fenced(log, old, client)
    assert not await is_fenced(log, new, client)
    client.close()


async def test_after_redis_has_lost_its_last_writes_an_old_claim_cannot_commit_a_new_event(
    log: Any, valkey: Valkey
) -> None:
    await append(log, 1)
    await claim_all(log, "email")
    restore = remember(valkey)
    await append(log, 1, 2)
    [old] = await log.claim("email", 1)
    restore()
    await append(log, 2, 3)
    [new] = await log.claim("email", 1)
    assert (numbers([old]), numbers([new])) == ([1], [2])
    client = blocking_redis_client(valkey.url)
    assert await is_fenced(log, old, client)
    client.close()
    assert (await log.lag("email")).pending == 1
    assert await log.commit(new)


async def test_a_heartbeat_renews_leases_and_counts_the_lost_ones(new_log: Any, valkey: Valkey) -> None:
    alive, other = await new_log(lease=2.0), await new_log(lease=2.0)
    await append(alive, 2)
    held = await alive.claim("email", 2)
    client: blocking.Redis = blocking_redis_client(valkey.url)
    deadline = time.monotonic() + 2.5  # longer than a lease
    while time.monotonic() < deadline:
        assert await asyncio.to_thread(alive.extend, client, held) == 0
        assert await other.claim("email", 2, wait=0.1) == []
    taken: list[Any] = []
    while len(taken) < 2:
        taken += await claim_when_due(other, "email")
    assert await asyncio.to_thread(alive.extend, client, held) == 2
    client.close()


async def test_an_idle_consumer_gets_each_new_event(new_log: Any) -> None:
    producer, consumer = await new_log(), await new_log()
    await consumer.claim("email", 1)
    for number in range(20):
        waiting = asyncio.create_task(consumer.claim("email", 1, wait=LIMIT))
        await asyncio.sleep(random.uniform(0.01, 0.03))
        await producer.append(an_event(number))
        [claimed] = await waiting
        await consumer.commit(claimed)


async def test_an_idle_consumer_sends_few_commands(log: Any, valkey: Valkey) -> None:
    await append(log, 1)
    await claim_all(log, "email")
    await log._counts.write()  # otherwise the counts are written during the measurement
    before = valkey.client.info("stats")["total_commands_processed"]
    assert await log.claim("email", 1, wait=1.2) == []
    assert valkey.client.info("stats")["total_commands_processed"] - before < 60


async def test_stop_waiting_ends_a_claim_that_waits(log: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, wait = asyncio.Event(), log._wait

    async def begin_to_wait(*arguments: Any) -> Any:
        begun.set()
        return await wait(*arguments)

    monkeypatch.setattr(log, "_wait", begin_to_wait)
    waiting = asyncio.create_task(log.claim("email", 1, wait=600.0))
    await asyncio.wait_for(begun.wait(), LIMIT)
    log.stop_waiting()
    assert await asyncio.wait_for(waiting, LIMIT) == []
    assert await asyncio.wait_for(log.claim("email", 1, wait=600.0), LIMIT) == [], "and one that begins later"
