"""The chain of partitions under clock changes, late producers, races at the seal, and trims."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from redis.exceptions import ConnectionError

from eventlog import events as module
from tests.support.event_log import an_event, append, claim_all, commit, lose_an_answer, numbers
from tests.support.programs import LIMIT

HOUR = 3600
ENGINES = ["lua"]


@pytest.fixture
def new_log(new_log: Any) -> Callable[..., Any]:
    return partial(new_log, partition_events=5)


# Clocks


@pytest.mark.parametrize("steps", [[0, -HOUR, HOUR], [HOUR, 0], [365 * 24 * HOUR, -24 * HOUR, 0], [-1, 1, -2, 2]])
async def test_no_change_of_the_clock_makes_a_consumer_miss_an_event(
    new_log: Any, clock: Callable[[float], None], steps: list[int]
) -> None:
    producers = [await new_log(), await new_log()]
    early, late = await new_log(), await new_log()
    positions, seen, number = [], [], 0
    for step in steps * 3:
        clock(step)
        for log in producers * 4:
            positions.append(await log.append(an_event(number)))
            number += 1
        seen += await claim_all(early, "early")
    assert sorted(positions, key=module.read_position) == positions
    assert seen == list(range(number))
    assert await claim_all(late, "late") == list(range(number))


async def test_leases_and_pauses_do_not_get_longer_when_the_clock_is_turned_back(
    new_log: Any, clock: Callable[[float], None]
) -> None:
    log, dead = await new_log(lease=0.5), await new_log(lease=0.5)
    await append(log, 3)
    [first] = await log.claim("email", 1)
    await dead.claim("email", 2)
    await log.put_back(first, 1.0)
    clock(-HOUR)
    found: set[int] = set()
    async with asyncio.timeout(LIMIT):
        while found < {0, 1, 2}:
            found |= set(numbers(await log.claim("email", 3, wait=1.0)))


async def test_a_claim_returns_the_events_before_an_error_in_the_next_partition(new_log: Any) -> None:
    log = await new_log()
    await append(log, 7)
    run, claims = log._scripts.run, 0

    async def run_once(name: str, *arguments: Any) -> Any:
        nonlocal claims
        claims += name == "claim"
        if claims == 2:
            raise ConnectionError("gone")
        return await run(name, *arguments)

    await log.claim("email", 0)
    log._scripts.run, claims = run_once, 0
    assert numbers(await log.claim("email", 10)) == [0, 1, 2, 3, 4]
    assert numbers(await log.claim("email", 10)) == [5, 6]


async def test_a_replay_from_a_time_finds_the_event_after_the_clock_was_turned_back(
    new_log: Any, clock: Callable[[float], None]
) -> None:
    """The times of events never decrease: after the clock is turned back, events get the last time."""
    log = await new_log()
    await append(log, 12)
    clock(-HOUR)
    await append(log, 12, 24)
    clock(HOUR)
    await append(log, 24, 36)
    found: list[Any] = []
    while claimed := await log.claim("email", 100):
        found += claimed
    await commit(log, found)
    stamps = [claimed.event().at for claimed in found]
    assert stamps == sorted(stamps)
    await log.replay("email", stamps[24])
    assert await claim_all(log, "email") == list(range(24, 36))


# Producers that come late


async def test_a_producer_that_was_suspended_for_many_partitions_appends_to_the_last_one(new_log: Any) -> None:
    suspended, busy, consumer = await new_log(), await new_log(), await new_log()
    await append(suspended, 3)
    await append(busy, 3, 60)
    assert await claim_all(consumer, "email") == list(range(60))
    await consumer.trim(older_than=0, force=True)
    await append(suspended, 60, 63)
    assert await claim_all(consumer, "email") == [60, 61, 62]


@pytest.mark.parametrize("command", range(18))
async def test_a_producer_may_be_suspended_before_any_of_its_commands(new_log: Any, command: int) -> None:
    """Meanwhile others append, seal, consume and trim. Every consumer gets the event that it appends then."""
    suspended, busy, consumer = await new_log(), await new_log(), await new_log()
    if command % 2:
        await append(suspended, 5)  # the next append finds a full partition
    before = await claim_all(consumer, "email")
    asleep, wake = asyncio.Event(), asyncio.Event()
    count = 0

    def late(execute: Callable[..., Any]) -> Callable[..., Any]:
        async def execute_late(*words: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == command // 2 + 1:
                asleep.set()
                await wake.wait()
            return await execute(*words, **options)

        return execute_late

    suspended._redis.execute_command = late(suspended._redis.execute_command)
    suspended._scripts._execute = late(suspended._scripts._execute)
    appending = asyncio.ensure_future(suspended.append(an_event(1000), new=True))
    await asyncio.wait([appending, asyncio.create_task(asleep.wait())], return_when=asyncio.FIRST_COMPLETED)
    await append(busy, 100, 123)
    found = await claim_all(consumer, "email")
    await consumer.trim(older_than=0, force=True)
    found += await claim_all(consumer, "email")
    wake.set()
    await appending
    await append(busy, 123, 130)
    found += await claim_all(consumer, "email")
    assert before == list(range(5 if command % 2 else 0))
    assert sorted(found) == [*range(100, 130), 1000]


async def test_an_append_may_be_repeated_after_any_error(new_log: Any) -> None:
    """The second error comes while the producer looks for the end of the log."""
    log, other = await new_log(), await new_log()
    await append(log, 4)
    lose_an_answer(log, "append")
    event = an_event(4)
    with pytest.raises(ConnectionError):
        await log.append(event, new=True)
    await append(other, 5, 6)
    zrangebyscore, down = log._redis.zrangebyscore, True

    async def fail_once(*words: Any, **options: Any) -> Any:
        nonlocal down
        if down:
            down = False
            raise ConnectionError("gone")
        return await zrangebyscore(*words, **options)

    log._redis.zrangebyscore = fail_once
    with pytest.raises(ConnectionError):
        await log.append(event)
    await log.append(event)
    assert await claim_all(other, "email") == list(range(6))


async def test_a_replay_does_not_disturb_a_running_append(new_log: Any) -> None:
    """The append searches sealed partitions for its id while a replay looks for the end of the log."""
    log, other = await new_log(), await new_log()
    await append(log, 3)
    lose_an_answer(log, "append")
    event = an_event(3)
    with pytest.raises(ConnectionError):
        await log.append(event, new=True)
    search = log._appender._search

    async def search_while_others_append(*arguments: Any) -> Any:
        found = await search(*arguments)
        log._appender._search = search
        await append(other, 4, 20)
        await log.replay("email", "end")
        return found

    log._appender._search = search_while_others_append
    await log.append(event)
    assert await claim_all(other, "other") == list(range(20))


async def test_a_consumer_at_the_end_of_the_log_gets_every_event_while_partitions_are_sealed(
    new_log: Any,
) -> None:
    """A partition takes at most three events and is open for a few milliseconds."""
    tiny = {"partition_events": 3, "partition_seconds": 0.005}
    producers, consumer = [await new_log(**tiny) for _ in range(4)], await new_log()
    positions: list[str] = []

    async def produce(log: Any) -> None:
        for number in range(80):
            positions.append(await log.append(an_event(number), new=True))

    producing = asyncio.gather(*[produce(log) for log in producers])
    found: list[str] = []
    async with asyncio.timeout(LIMIT):
        while not producing.done() or len(found) < len(positions):
            claimed = await consumer.claim("email", 2, wait=0.05)
            found += [one.position for one in claimed]
            await commit(consumer, claimed)
    assert len(set(positions)) == 320
    assert found == sorted(positions, key=module.read_position)
    assert len({position.partition("-")[0] for position in positions}) > 100, "partitions were sealed often"
