"""The event log, in its three forms: partitions with Lua, Redis Streams, JetStream. What it promises to its users."""

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
    until,
)
from tests.support.programs import ROOT, NatsServer, Valkey, a_name, running_nats

logs = chapter_module("6_event_bus.logs")

Event = module.Event


IN_REDIS_ONLY = {
    "test_only_who_holds_the_lease_can_commit": "JetStream has no fencing token",
    "test_a_process_that_claims_again_what_it_held_itself_has_made_no_attempt": "JetStream counts each delivery",
    "test_claims_whose_answers_are_lost_are_no_attempts_and_wait_for_no_lease": "the same",
    "test_an_answer_that_is_lost_is_no_second_event": "test_jetstream.py has its own",
    "test_what_was_done_is_counted_a_moment_later": "JetStream counts at once, and no retries",
    "test_events_that_are_left_in_the_other_log_are_told_of_at_the_start": "only two logs of one Redis know each other",
    "test_what_everybody_has_done_can_be_trimmed_and_no_more": "JetStream trims the last event too",
    "test_a_consumer_that_is_overtaken_is_told_how_much_it_has_lost": "the process that trims says so",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test that asks Redis nothing runs on JetStream too."""
    if "new_log" in metafunc.fixturenames and "new_log" not in {
        mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")
    }:
        in_redis = (
            "valkey" in inspect.signature(metafunc.function).parameters or metafunc.function.__name__ in IN_REDIS_ONLY
        )
        metafunc.parametrize(
            "new_log", ["lua", "streams"] if in_redis else ["lua", "streams", "jetstream"], indirect=True
        )


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with running_nats(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
async def new_log(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Any]]:
    """Opens logs on one empty Redis, or with one new name in JetStream: as many processes as the test wants to be."""
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


async def test_events_come_in_the_order_in_which_they_were_appended_each_at_a_position_that_grows(log: Any) -> None:
    positions = await append(log, 25)
    assert sorted(positions, key=module.read_position) == positions
    assert len(set(positions)) == 25
    claimed = await log.claim("email", 5)
    assert [one.position for one in claimed] == positions[:5]
    assert numbers(claimed) + await claim_all(log, "email") == list(range(25))


async def test_an_event_is_as_it_was_and_has_the_time_of_the_log(log: Any, valkey: Valkey) -> None:
    data = {"to": "jörg@bücher.example", "subject": '"\\ <img src=x onerror=alert(1)>', "text": "a\nb\u2028 \x00"}
    await log.append(Event("<1@x>", "something_happened", data))
    [claimed] = await log.claim("email", 10)
    event = claimed.event()
    assert (event.id, event.name, event.data) == ("<1@x>", "something_happened", data)
    seconds, _ = valkey.client.time()
    assert abs(event.at - seconds) < 5


async def test_appending_the_same_id_again_gives_the_position_of_then(log: Any, new_log: Any) -> None:
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


async def test_appends_that_come_together_are_one_script(log: Any, valkey: Valkey) -> None:
    await log.append(an_event())
    before = valkey.client.info("commandstats")["cmdstat_evalsha"]["calls"]
    positions = await asyncio.gather(*[log.append(an_event(n), new=True) for n in range(500)])
    assert positions == sorted(positions, key=module.read_position)
    assert valkey.client.info("commandstats")["cmdstat_evalsha"]["calls"] - before <= 6


@pytest.mark.parametrize("event_id", ["", "a b", "a\nb", "ä", "x" * 251])
async def test_an_id_that_is_no_word_is_refused(log: Any, event_id: str) -> None:
    with pytest.raises(ValueError, match="id"):
        log.append(Event(event_id, "x", {}))


async def test_an_answer_that_is_lost_is_no_second_event(new_log: Any, valkey: Valkey) -> None:
    """The producer appends again, to whatever partition is open by then."""
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


async def test_consumers_of_different_names_each_get_everything(log: Any) -> None:
    await append(log, 15)
    assert await claim_all(log, "email") == list(range(15))
    assert await claim_all(log, "audit") == list(range(15))


async def test_a_consumer_that_comes_later_begins_at_the_beginning(log: Any, new_log: Any) -> None:
    await append(log, 5)
    await claim_all(log, "email")
    await append(log, 5, 25)
    assert await claim_all(await new_log(), "newcomer") == list(range(25))


async def test_consumers_in_one_process_commit_and_extend_together_each_its_own(log: Any, valkey: Valkey) -> None:
    await append(log, 3)
    email, audit = await log.claim("email", 3), await log.claim("audit", 3)
    client: blocking.Redis = blocking_redis_client(valkey.url)
    assert await asyncio.to_thread(log.extend, client, [*email, *audit]) == 0
    client.close()
    # The same events, in one batch: what is done for one consumer is not for the other.
    assert await commit(log, [email[0], audit[0], audit[1]]) == [True] * 3
    assert ((await log.lag("email")).pending, (await log.lag("audit")).pending) == (2, 1)
    assert await commit(log, [audit[2], email[2], email[1]]) == [True] * 3
    assert ((await log.lag("email")).pending, (await log.lag("audit")).pending) == (0, 0)


async def test_processes_of_one_name_share_the_events(new_log: Any) -> None:
    one, another = await new_log(), await new_log()
    await append(one, 30)
    found: list[int] = []
    for log in (one, another) * 10:
        claimed = await log.claim("email", 3)
        found += numbers(claimed)
        await commit(log, claimed)
    assert found == list(range(30))
    assert await one.claim("email", 3) == await another.claim("email", 3) == []


async def test_the_cursor_moves_when_the_work_is_done_and_not_before(new_log: Any) -> None:
    log = await new_log()
    positions = await append(log, 25)
    claimed = await log.claim("email", 25)
    while len(claimed) < 25:
        claimed += await log.claim("email", 25)
    await commit(log, claimed[1:])
    lag = await log.lag("email")
    assert (lag.position, lag.waiting, lag.pending) == (positions[0], 0, 1), "all but the first are done"
    await commit(log, claimed[:1])
    lag = await log.lag("email")
    assert (lag.waiting, lag.pending) == (0, 0)


async def test_what_a_dead_process_held_is_taken_over_when_its_lease_ends(new_log: Any) -> None:
    dead, alive = await new_log(lease=2.0), await new_log(lease=2.0)
    await append(dead, 12)
    before = time.monotonic()
    await dead.claim("email", 3)
    assert numbers(await alive.claim("email", 2)) == [3, 4], "new ones need not wait"
    claimed: list[Any] = []
    while len(claimed) < 3:
        claimed += [one for one in await claim_when_due(alive, "email", 3) if one.attempts == 2]
    assert sorted(numbers(claimed)) == [0, 1, 2]
    assert time.monotonic() - before >= 2.0


async def test_only_who_holds_the_lease_can_commit(new_log: Any) -> None:
    sleeper, other = await new_log(lease=0.2), await new_log(lease=LEASE)
    await append(sleeper, 1)
    [mine] = await sleeper.claim("email", 1)
    other._lease_ms, lease = 200, other._lease_ms  # Streams measure by the lease of who takes over
    [theirs] = await claim_when_due(other, "email")
    other._lease_ms = lease
    assert not await sleeper.commit(mine), "it was asleep for longer than its lease"
    assert not await sleeper.put_back(mine, 0.0)
    assert not await sleeper.park(mine, "late")
    assert await sleeper.parked("email") == []
    assert (await other.lag("email")).pending == 1
    assert await other.commit(theirs)
    assert not await other.commit(theirs), "once"
    assert await claim_all(other, "email") == []


async def is_nobodys(log: Any, claimed: Any, client: blocking.Redis) -> bool:
    """Whether this claim has no power any more."""
    extended = await asyncio.to_thread(log.extend, client, [claimed]) == 0
    told = [await log.commit(claimed), await log.put_back(claimed, 0.0), await log.park(claimed, "old")]
    return not extended and not any(told) and await log.parked("email") == []


async def test_a_claim_of_before_a_replay_has_no_power_over_the_one_after_it(log: Any, valkey: Valkey) -> None:
    """One process has claimed the same event twice, each time as the first attempt."""
    await append(log, 1)
    [old] = await log.claim("email", 1)
    await log.replay("email", "beginning")
    [new] = await log.claim("email", 1)
    assert (old.position, old.attempts) == (new.position, new.attempts)
    client = blocking_redis_client(valkey.url)
    assert await is_nobodys(log, old, client)
    assert not await is_nobodys(log, new, client)
    client.close()


async def test_when_redis_has_lost_its_tail_a_claim_of_before_has_no_power_over_what_took_its_place(
    log: Any, valkey: Valkey
) -> None:
    await append(log, 1)
    await claim_all(log, "email")
    take_back = remember(valkey)
    await append(log, 1, 2)
    [old] = await log.claim("email", 1)
    take_back()
    await append(log, 2, 3)
    [new] = await log.claim("email", 1)
    assert (numbers([old]), numbers([new])) == ([1], [2])
    client = blocking_redis_client(valkey.url)
    assert await is_nobodys(log, old, client)
    client.close()
    assert (await log.lag("email")).pending == 1
    assert await log.commit(new)


async def test_a_heartbeat_keeps_a_lease_and_says_which_are_lost(new_log: Any, valkey: Valkey) -> None:
    alive, other = await new_log(lease=1.0), await new_log(lease=1.0)
    await append(alive, 2)
    held = await alive.claim("email", 2)
    client: blocking.Redis = blocking_redis_client(valkey.url)
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:
        assert await asyncio.to_thread(alive.extend, client, held) == 0
        assert await other.claim("email", 2, wait=0.1) == []
    taken: list[Any] = []
    while len(taken) < 2:
        taken += await claim_when_due(other, "email")
    assert await asyncio.to_thread(alive.extend, client, held) == 2
    client.close()


async def test_an_idle_consumer_is_woken_at_once(new_log: Any) -> None:
    producer, consumer = await new_log(), await new_log()
    await consumer.claim("email", 1)
    times = []
    for number in range(20):
        waiting = asyncio.create_task(consumer.claim("email", 1, wait=10.0))
        await asyncio.sleep(random.uniform(0.01, 0.03))
        before = time.perf_counter()
        await producer.append(an_event(number))
        [claimed] = await waiting
        times.append(time.perf_counter() - before)
        await consumer.commit(claimed)
    assert sorted(times)[10] < 0.25, times


async def test_an_idle_consumer_does_not_poll_busily(log: Any, valkey: Valkey) -> None:
    await append(log, 1)
    await claim_all(log, "email")
    await log._counts.tell()  # else that comes a moment later
    before = valkey.client.info("stats")["total_commands_processed"]
    assert await log.claim("email", 1, wait=1.2) == []
    assert valkey.client.info("stats")["total_commands_processed"] - before < 60


async def test_who_stops_waits_no_longer(log: Any) -> None:
    waiting = asyncio.create_task(log.claim("email", 1, wait=60.0))
    await asyncio.sleep(0.1)
    log.stop_waiting()
    assert await asyncio.wait_for(waiting, 5) == []


# Failures


async def test_claims_whose_answers_are_lost_are_no_attempts_and_wait_for_no_lease(new_log: Any) -> None:
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


async def test_a_process_that_claims_again_what_it_held_itself_has_made_no_attempt(new_log: Any) -> None:
    """It was asleep for longer than its lease, say; but it lives, so no event has killed it."""
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


async def test_what_may_have_killed_its_workers_goes_alone(new_log: Any) -> None:
    """So at each further kill one event counts an attempt, and not all that were in hand."""
    await append(await new_log(), 4)
    for _ in range(2):  # two owners die with all four in their hands
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


async def test_what_is_dead_behind_many_living_is_taken_over(new_log: Any, valkey: Valkey) -> None:
    alive, dead, third = await new_log(), await new_log(lease=1.0), await new_log(lease=1.0)
    await append(alive, 320)
    held: list[Any] = []
    while len(held) < 300:
        held += await alive.claim("email", 100)
    left = {one.position for one in await dead.claim("email", 10)}
    client = blocking_redis_client(valkey.url)
    async with asyncio.timeout(15):
        while left:
            await asyncio.to_thread(alive.extend, client, held)
            left -= {one.position for one in await third.claim("email", 12, wait=0.1)}
    client.close()


async def test_what_is_put_back_comes_again_after_its_pause_and_counts_attempts(log: Any) -> None:
    await append(log, 3)
    [first, *others] = await log.claim("email", 3)
    await commit(log, others)
    before = time.monotonic()
    assert await log.put_back(first, 1.0)
    assert await log.claim("email", 3) == []
    [again] = await claim_when_due(log, "email")
    assert time.monotonic() - before >= 0.95
    assert (again.position, again.attempts) == (first.position, 2)
    assert await log.commit(again)


async def test_what_was_done_is_counted_a_moment_later(log: Any) -> None:
    await append(log, 3)
    claimed = await log.claim("email", 3)
    await commit(log, claimed[1:])
    await log.put_back(claimed[0], 60.0)

    async def counted() -> bool:
        lag = await log.lag("email")
        return (lag.handled, lag.retried) == (2, 1)

    await until(counted)


async def test_what_is_given_back_unfinished_comes_at_once_and_counts_no_attempt(log: Any) -> None:
    await append(log, 1)
    [first] = await log.claim("email", 1)
    assert await log.put_back(first, 0.0, tried=False)
    [again] = await claim_when_due(log, "email")
    assert again.attempts == 1


async def test_a_parked_event_is_out_of_the_way_and_can_be_replayed(log: Any) -> None:
    await append(log, 12)
    [first, *others] = await log.claim("email", 3)
    assert await log.park(first, "no such mailbox <img src=x>")
    await commit(log, others)
    assert await claim_all(log, "email") == list(range(3, 12)), "the rest goes on"
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


async def test_what_is_no_event_is_said_to_be_none_and_can_be_parked(log: Any, valkey: Valkey) -> None:
    await append(log, 1)
    for rubbish in (b"", b"\x80\x04pickle", b"no json", b"[]", b'{"id": 1}', b"[" * 10_000, b"x" * 1_000_000):
        if isinstance(log, streams.StreamLog):
            valkey.client.xadd(streams.STREAM, {"e": rubbish})
        else:
            valkey.client.rpush(f"eventlog:partitions:{{{log._appender._open}}}", rubbish)
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
            assert await log.park(one, "rubbish")
    assert good == [0, 1]
    assert len(bad) == len(await log.parked("email")) == 7


# Replay


@pytest.mark.parametrize("start", ["beginning", "middle", "position", "end"])
async def test_a_consumer_can_be_sent_back_without_disturbing_the_others(log: Any, valkey: Valkey, start: str) -> None:
    positions = await append(log, 20)
    await claim_all(log, "email")
    await claim_all(log, "audit")
    before = valkey.client.time()
    while valkey.client.time()[1] // 1000 == before[1] // 1000:
        pass  # so that the two halves have different times
    positions += await append(log, 20, 35)
    at = 20
    [claimed] = await log.claim("email", 1)
    where: Any = {"middle": claimed.event().at, "position": positions[7]}.get(start, start)
    lag = await log.lag("audit")
    await log.replay("email", where)
    await log.commit(claimed)  # a claim of before the replay: it makes no difference any more
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
async def test_a_place_that_is_not_in_the_log_is_refused(log: Any, start: str) -> None:
    await append(log, 3)
    with pytest.raises(ValueError, match="position"):
        await log.replay("email", start)
    assert await claim_all(log, "email") == [0, 1, 2]


@pytest.mark.parametrize("name", ["", "Email", "a b", "x" * 41, "<img src=x onerror=alert(1)>", "{a}"])
async def test_a_name_that_is_no_name_is_refused(log: Any, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        await log.claim(name, 1)


# Retention


async def test_what_everybody_has_done_can_be_trimmed_and_no_more(log: Any) -> None:
    await append(log, 45)
    await claim_all(log, "email")
    claimed = await log.claim("audit", 15)
    await commit(log, claimed[:12])
    await commit(log, await log.claim("audit", 1))
    trimmed = await log.trim(older_than=0)
    assert trimmed.kept_for == "audit"
    assert 0 < trimmed.events <= 12
    assert await commit(log, claimed[12:]) == [True] * 3, "nothing was lost"
    assert await claim_all(log, "audit") == list(range(16, 45))
    assert (await log.lag("audit")).overtaken == 0
    assert await claim_all(log, "newcomer") == list(range(trimmed.events, 45)), "history begins later now"
    await log.trim(older_than=0)
    assert sum(partition.length for partition in await log.partitions()) <= 10


async def test_a_full_redis_can_be_trimmed(log: Any, valkey: Valkey) -> None:
    await append(log, 25)
    await claim_all(log, "email")
    with full(valkey):
        assert (await log.trim(older_than=0)).events >= 20


async def test_a_name_that_only_the_other_log_knows_keeps_nothing_from_being_trimmed(log: Any, valkey: Valkey) -> None:
    valkey.client.sadd("eventlog:consumers", "stranger")
    await append(log, 25)
    await claim_all(log, "email")
    assert (await log.trim(older_than=0)).events >= 20


async def test_events_that_are_left_in_the_other_log_are_told_of_at_the_start(
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


async def test_a_limit_in_bytes_takes_the_oldest(log: Any) -> None:
    for hundred in range(0, 2500, 100):
        await asyncio.gather(*[log.append(an_event(hundred + number), new=True) for number in range(100)])
    await claim_all(log, "email", 500)
    before = sum(partition.bytes for partition in await log.partitions())
    assert (await log.trim(larger_than=before)).events == 0
    trimmed = await log.trim(larger_than=before // 2)
    after = sum(partition.bytes for partition in await log.partitions())
    assert before / 4 < after <= before / 2
    assert await claim_all(log, "newcomer", 500) == list(range(trimmed.events, 2500))


async def test_a_consumer_that_is_overtaken_is_told_how_much_it_has_lost(
    new_log: Any, caplog: pytest.LogCaptureFixture
) -> None:
    log, trimmer = await new_log(), await new_log()
    await append(log, 45)
    claimed = await log.claim("email", 3)
    await commit(log, claimed[:2])
    trimmed = await trimmer.trim(older_than=0, force=True)
    assert trimmed.events >= 40
    log._looks = {}
    left = await claim_all(log, "email")
    assert left == list(range(trimmed.events, 45))
    assert not await log.commit(claimed[2]), "it is gone"

    async def counted() -> bool:
        return bool((await log.lag("email")).overtaken == trimmed.events - 2)

    await until(counted)
    assert f"email was overtaken: {trimmed.events - 2} events" in caplog.text or caplog.text.count("overtaken") > 1


async def test_a_parked_event_outlives_the_trim(log: Any) -> None:
    await append(log, 25)
    [first] = await log.claim("email", 1)
    assert await log.park(first, "later")
    await claim_all(log, "email")
    assert (await log.trim(older_than=0)).events > 0
    await log.unpark("email")
    [again] = await claim_when_due(log, "email")
    assert numbers([again]) == [0]
    assert await log.commit(again)


async def test_memory_of_ids_is_given_back(log: Any, valkey: Valkey) -> None:
    await append(log, 25)
    keys = list(valkey.client.scan_iter("eventlog:ids:*"))
    ttls = [valkey.client.ttl(key) for key in keys]
    assert sum(0 < ttl <= 120 for ttl in ttls) >= len(keys) - 1, "all but those of the open partition"


# What only Streams need


@pytest.mark.parametrize("new_log", ["streams"], indirect=True)
async def test_a_full_redis_takes_no_event_into_the_stream_though_a_new_minute_begins(
    new_log: Any, valkey: Valkey
) -> None:
    log = await new_log()
    await append(log, 1)
    for key in valkey.client.scan_iter("eventlog:ids:{stream}:*"):
        valkey.client.hset(key, "", 0)  # as in another minute
    with full(valkey), pytest.raises(RedisError, match="maxmemory"):
        await log.append(an_event(1))
    assert await claim_all(log, "email") == [0]


@pytest.mark.parametrize("new_log", ["streams"], indirect=True)
async def test_a_group_forgets_the_names_of_those_who_have_ended_or_died(
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


# Kills, as far as one process can play them


async def test_under_races_of_everything_each_consumer_gets_each_event(new_log: Any) -> None:
    """Producers that cancel and repeat, consumers that die with what they hold, tiny partitions."""
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
                log = await new_log(lease=0.3)  # the old one dies with what it holds
            else:
                await commit(log, claimed)

    making = [asyncio.create_task(produce(log)) for log in producers]

    def done() -> bool:
        return all(task.done() for task in making)

    seen: dict[str, list[str]] = {name: [] for name in ("email", "audit")}
    async with asyncio.timeout(40):
        await asyncio.gather(*making, *[consume(name, seen[name]) for name in seen for _ in range(2)])
    for name, ids in seen.items():
        assert set(ids) == set(appended), f"{name}, seed {seed}"
    log = await new_log()
    assert len(set(appended)) == 240
    everything = await claim_all_ids(log, "afterwards")
    assert sorted(everything) == sorted(appended), f"each once in the log, seed {seed}"


async def claim_all_ids(log: Any, consumer: str) -> list[str]:
    found: list[str] = []
    while claimed := await log.claim(consumer, 100):
        found += [one.event().id for one in claimed]
        await commit(log, claimed)
    return found


def test_the_quick_start_of_the_library_s_readme_prints_what_it_says(valkey: Valkey) -> None:
    code = re.findall(r"(?ms)^```python\n(.*?)^```$", (ROOT / "eventlog" / "README.md").read_text())[0]
    program = code.replace("Redis(port=6379)", f'Redis.from_url("{valkey.url}")')
    valkey.client.flushall()
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "order_placed book\n", done.stderr
