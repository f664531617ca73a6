"""The guarantees of the event log, on partitions with Lua, on Redis Streams, and on JetStream."""

import asyncio
import inspect
import random
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis as blocking
from redis.exceptions import ConnectionError, RedisError

from asynckit.redis_client import blocking_redis_client, redis_client
from common.processes.chapter import chapter_module
from common.settings import Settings
from eventlog import events as module
from eventlog import partitions, streams
from eventlog.jetstream import JetStreamLog
from tests.support.event_log import (
    LEASE,
    an_event,
    append,
    claim_all,
    claim_when_due,
    commit,
    full,
    lose_an_answer,
    numbers,
    remember,
)
from tests.support.programs import LIMIT, ROOT, NatsServer, Valkey, a_name, running_nats, until

logs = chapter_module("6_event_bus.logs")

Event = module.Event


IN_REDIS_ONLY = {
    "test_only_the_holder_of_the_lease_can_commit": "JetStream has no fencing token",
    "test_a_process_that_claims_its_own_event_again_does_not_count_an_attempt": "JetStream counts each delivery",
    "test_claims_whose_answers_are_lost_are_repeated_at_once_and_not_counted": "the same",
    "test_an_append_whose_answer_was_lost_can_be_repeated": "test_jetstream.py has its own",
    "test_commits_and_retries_are_counted_a_moment_later": "JetStream counts at once, and no retries",
    "test_events_that_are_left_in_the_other_log_are_logged_at_the_start": "only two logs of one Redis know each other",
    "test_a_trim_deletes_only_events_that_every_consumer_has_handled": "JetStream trims the last event too",
    "test_an_overtaken_consumer_logs_and_counts_how_many_events_it_has_lost": "the process that trims says so",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test that does not use Redis itself runs on JetStream too."""
    given = {mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")}
    if "new_log" in metafunc.fixturenames and "new_log" not in given:
        test = metafunc.function
        in_redis = "valkey" in inspect.signature(test).parameters or test.__name__ in IN_REDIS_ONLY
        metafunc.parametrize(
            "new_log", ["lua", "streams"] if in_redis else ["lua", "streams", "jetstream"], indirect=True
        )


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with running_nats(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
async def new_log(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Any]]:
    """Each call opens the same log as another process would. The log is empty at first."""
    async with AsyncExitStack() as stack:
        if request.param == "jetstream":
            url, name = request.getfixturevalue("nats").url, f"test-{a_name()}"

            async def open_jetstream(lease: float = LEASE, **_: Any) -> Any:
                return await stack.enter_async_context(JetStreamLog(url, lease, name))

            yield open_jetstream
            return
        valkey: Valkey = request.getfixturevalue("valkey")
        valkey.client.flushall()

        async def open_log(lease: float = LEASE, **more: Any) -> Any:
            redis = await stack.enter_async_context(redis_client(valkey.url))
            if request.param == "streams":
                return await stack.enter_async_context(streams.StreamLog(redis, lease))
            log = partitions.PartitionedLog(redis, lease, **({"partition_events": 10} | more))
            return await stack.enter_async_context(log)

        yield open_log


@pytest.fixture
async def log(new_log: Any) -> Any:
    return await new_log()


# Appending


async def test_events_are_claimed_in_the_order_of_the_appends_and_their_positions_grow(log: Any) -> None:
    positions = await append(log, 25)
    assert sorted(positions, key=module.read_position) == positions
    assert len(set(positions)) == 25
    claimed = await log.claim("email", 5)
    assert [one.position for one in claimed] == positions[:5]
    assert numbers(claimed) + await claim_all(log, "email") == list(range(25))


async def test_a_claimed_event_has_the_appended_data_and_the_time_of_redis(log: Any, valkey: Valkey) -> None:
    data = {"to": "jörg@bücher.example", "subject": '"\\ <img src=x onerror=alert(1)>', "text": "a\nb\u2028 \x00"}
    await log.append(Event("<1@x>", "something_happened", data))
    [claimed] = await log.claim("email", 10)
    event = claimed.event()
    assert (event.id, event.name, event.data) == ("<1@x>", "something_happened", data)
    seconds, _ = valkey.client.time()
    assert abs(event.at - seconds) < LIMIT


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


async def test_an_append_whose_answer_was_lost_can_be_repeated(new_log: Any, valkey: Valkey) -> None:
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


# Failures


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
    [first] = await log.claim("email", 1)
    assert await log.put_back(first, 0.0, tried=False)
    [again] = await claim_when_due(log, "email")
    assert again.attempts == 1


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


# Replay


@pytest.mark.parametrize("start", ["beginning", "middle", "position", "end"])
async def test_a_replay_of_one_consumer_does_not_affect_the_others(log: Any, valkey: Valkey, start: str) -> None:
    positions = await append(log, 20)
    await claim_all(log, "email")
    await claim_all(log, "audit")
    before = valkey.client.time()
    while valkey.client.time()[1] // 1000 == before[1] // 1000:
        pass  # wait for the next millisecond, so that the two halves have different times
    positions += await append(log, 20, 35)
    at = 20
    [claimed] = await log.claim("email", 1)
    where: Any = {"middle": claimed.event().at, "position": positions[7]}.get(start, start)
    lag = await log.lag("audit")
    await log.replay("email", where)
    await log.commit(claimed)  # a claim from before the replay: this has no effect
    expected = {"beginning": 0, "middle": at, "position": 7, "end": 35}[start]
    assert (await log.lag("email")).waiting == 35 - expected
    assert await claim_all(log, "email") == list(range(expected, 35))
    assert (await log.lag("audit")).waiting == lag.waiting == 15
    assert await claim_all(log, "audit") == list(range(20, 35))


async def test_a_replay_reaches_every_process_of_the_consumer(new_log: Any) -> None:
    one, another = await new_log(), await new_log()
    await append(one, 25)
    await claim_all(one, "email")
    await claim_all(another, "email")
    await (await new_log()).replay("email", "beginning")
    found: list[int] = []
    while len(found) < 25:
        for log in (another, one):
            claimed = await log.claim("email", 3, wait=2.0 if not found else 0.0)
            await commit(log, claimed)
            found += numbers(claimed)
    assert sorted(found) == list(range(25))


@pytest.mark.parametrize("start", ["x", "1-2-3", "-1", "1-1", "99999999999999-0", ""])
async def test_a_replay_from_an_unknown_position_is_refused(log: Any, start: str) -> None:
    await append(log, 3)
    with pytest.raises(ValueError, match="position"):
        await log.replay("email", start)
    assert await claim_all(log, "email") == [0, 1, 2]


@pytest.mark.parametrize("name", ["", "Email", "a b", "x" * 41, "<img src=x onerror=alert(1)>", "{a}"])
async def test_an_invalid_consumer_name_is_refused(log: Any, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        await log.claim(name, 1)


# Retention


async def test_a_trim_deletes_only_events_that_every_consumer_has_handled(log: Any) -> None:
    await append(log, 45)
    await claim_all(log, "email")
    claimed = await log.claim("audit", 15)
    await commit(log, claimed[:12])
    await commit(log, await log.claim("audit", 1))
    trimmed = await log.trim(older_than=0)
    assert trimmed.kept_for == "audit"
    assert 0 < trimmed.events <= 12
    assert await commit(log, claimed[12:]) == [True] * 3, "no event was lost"
    assert await claim_all(log, "audit") == list(range(16, 45))
    assert (await log.lag("audit")).overtaken == 0
    assert await claim_all(log, "newcomer") == list(range(trimmed.events, 45)), "the log starts later now"
    await log.trim(older_than=0)
    assert sum(partition.length for partition in await log.partitions()) <= 10


async def test_a_full_redis_can_be_trimmed(log: Any, valkey: Valkey) -> None:
    await append(log, 25)
    await claim_all(log, "email")
    with full(valkey):
        assert (await log.trim(older_than=0)).events >= 20


async def test_a_consumer_of_the_other_log_does_not_prevent_a_trim(log: Any, valkey: Valkey) -> None:
    valkey.client.sadd("eventlog:consumers", "stranger")
    await append(log, 25)
    await claim_all(log, "email")
    assert (await log.trim(older_than=0)).events >= 20


async def test_events_that_are_left_in_the_other_log_are_logged_at_the_start(
    log: Any, valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    async def start_with_the_other() -> str:
        caplog.clear()
        async with redis_client(valkey.url) as redis:
            settings = Settings(log="lua" if isinstance(log, streams.StreamLog) else "streams")
            async with logs.make_log(settings, redis):
                return caplog.text

    assert await start_with_the_other() == ""
    await append(log, 3)
    assert "LOG was changed: 3 events are left" in await start_with_the_other()
    await commit(log, await log.claim("email", 1))
    held = await log.claim("email", 1)
    assert "LOG was changed: 2 events are left" in await start_with_the_other()
    await commit(log, [*held, *await log.claim("email", 1)])
    assert await start_with_the_other() == ""


async def test_a_limit_in_bytes_deletes_the_oldest_events(log: Any) -> None:
    for hundred in range(0, 2500, 100):
        await asyncio.gather(*[log.append(an_event(hundred + number), new=True) for number in range(100)])
    await claim_all(log, "email", 500)
    before = sum(partition.bytes for partition in await log.partitions())
    assert (await log.trim(larger_than=before)).events == 0
    trimmed = await log.trim(larger_than=before // 2)
    after = sum(partition.bytes for partition in await log.partitions())
    assert before / 4 < after <= before / 2
    assert await claim_all(log, "newcomer", 500) == list(range(trimmed.events, 2500))


async def test_an_overtaken_consumer_logs_and_counts_how_many_events_it_has_lost(
    new_log: Any, caplog: pytest.LogCaptureFixture
) -> None:
    log, trimmer = await new_log(), await new_log()
    await append(log, 45)
    claimed = await log.claim("email", 3)
    await commit(log, claimed[:2])
    trimmed = await trimmer.trim(older_than=0, force=True)
    assert trimmed.events >= 40
    log._next_look = {}
    left = await claim_all(log, "email")
    assert left == list(range(trimmed.events, 45))
    assert not await log.commit(claimed[2]), "it is deleted"

    async def counted() -> bool:
        return bool((await log.lag("email")).overtaken == trimmed.events - 2)

    await until(counted)
    assert f"email was overtaken: {trimmed.events - 2} events" in caplog.text or caplog.text.count("overtaken") > 1


async def test_a_trim_keeps_parked_events(log: Any) -> None:
    await append(log, 25)
    [first] = await log.claim("email", 1)
    assert await log.park(first, "later")
    await claim_all(log, "email")
    assert (await log.trim(older_than=0)).events > 0
    await log.unpark("email")
    [again] = await claim_when_due(log, "email")
    assert numbers([again]) == [0]
    assert await log.commit(again)


async def test_the_ids_of_sealed_partitions_expire(log: Any, valkey: Valkey) -> None:
    await append(log, 25)
    keys = list(valkey.client.scan_iter("eventlog:ids:*"))
    ttls = [valkey.client.ttl(key) for key in keys]
    assert sum(0 < ttl <= 120 for ttl in ttls) >= len(keys) - 1, "all but those of the open partition"


# Streams only


@pytest.mark.parametrize("new_log", ["streams"], indirect=True)
async def test_a_full_redis_refuses_an_event_at_the_start_of_a_minute_too(new_log: Any, valkey: Valkey) -> None:
    log = await new_log()
    await append(log, 1)
    for key in valkey.client.scan_iter("eventlog:ids:{stream}:*"):
        valkey.client.hset(key, "", 0)  # as if the ids were from another minute
    with full(valkey), pytest.raises(RedisError, match="maxmemory"):
        await log.append(an_event(1))
    assert await claim_all(log, "email") == [0]


@pytest.mark.parametrize("new_log", ["streams"], indirect=True)
async def test_the_names_of_ended_and_dead_processes_are_removed_from_a_group(
    new_log: Any, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await new_log()
    await append(log, 10)
    for _ in range(5):
        ended = await new_log()
        await commit(ended, await ended.claim("email", 1))
        await ended.__aexit__(None, None, None)
    assert valkey.client.xinfo_consumers(streams.STREAM, "email") == []
    dead, holding = await new_log(), await new_log()
    await commit(dead, await dead.claim("email", 1))
    await holding.claim("email", 1)
    monkeypatch.setattr(streams, "GONE_SECONDS", -1)
    await (await new_log()).claim("email", 0)
    assert [one["name"] for one in valkey.client.xinfo_consumers(streams.STREAM, "email")] == [holding.owner]


# Races and crashes, simulated in one process


async def test_every_consumer_gets_every_event_under_races_and_crashes(new_log: Any) -> None:
    """Producers repeat appends, consumers die while they hold events, and partitions are tiny."""
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    producers = [await new_log(partition_events=7, partition_seconds=0.02) for _ in range(3)]
    appended: list[str] = []

    async def produce(log: Any) -> None:
        for _ in range(80):
            event = an_event(0, f"<{chance.getrandbits(60):x}@x>")
            for _ in range(chance.choice([1, 1, 2])):
                await log.append(event)
            appended.append(event.id)

    async def consume(name: str, seen: list[str]) -> None:
        log = await new_log(lease=0.3)
        while not done() or len(set(seen)) < len(appended):
            claimed = await log.claim(name, chance.randint(1, 20), wait=0.1)
            seen += [one.event().id for one in claimed]
            if chance.random() < 0.05:
                log = await new_log(lease=0.3)  # the old process dies while it holds these events
            else:
                await commit(log, claimed)

    producing = [asyncio.create_task(produce(log)) for log in producers]

    def done() -> bool:
        return all(task.done() for task in producing)

    seen: dict[str, list[str]] = {name: [] for name in ("email", "audit")}
    async with asyncio.timeout(4 * LIMIT):
        await asyncio.gather(*producing, *[consume(name, seen[name]) for name in seen for _ in range(2)])
    for name, ids in seen.items():
        assert set(ids) == set(appended), f"{name}, seed {seed}"
    log = await new_log()
    assert len(set(appended)) == 240
    everything = await claim_all_ids(log, "afterwards")
    assert sorted(everything) == sorted(appended), f"the log has each event once, seed {seed}"


async def claim_all_ids(log: Any, consumer: str) -> list[str]:
    found: list[str] = []
    while claimed := await log.claim(consumer, 100):
        found += [one.event().id for one in claimed]
        await commit(log, claimed)
    return found


def test_the_quick_start_of_the_library_prints_what_its_readme_says(valkey: Valkey) -> None:
    code = re.findall(r"(?ms)^```python\n(.*?)^```$", (ROOT / "eventlog" / "README.md").read_text())[0]
    program = code.replace("Redis(port=6379)", f'Redis.from_url("{valkey.url}")')
    valkey.client.flushall()
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.stdout == "order_placed book\n", done.stderr
