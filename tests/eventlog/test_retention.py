"""Replays and trims, on every engine of the log."""

import asyncio
from typing import Any

import pytest
from redis.exceptions import RedisError

from asynckit.redis_client import redis_client
from common.processes.chapter import chapter_module
from common.settings import Settings
from eventlog import streams
from tests.support.event_log import (
    an_event,
    append,
    claim_all,
    claim_when_due,
    commit,
    full,
    numbers,
)
from tests.support.programs import until
from tests.support.servers import Valkey

logs = chapter_module("6_event_bus.logs")


# Replay


@pytest.mark.parametrize("start", ["beginning", "middle", "position", "end"])
async def test_a_replay_of_one_consumer_does_not_affect_the_others(log: Any, engine: str, start: str) -> None:
    positions = await append(log, 20)
    await claim_all(log, "email")
    await claim_all(log, "audit")
    await asyncio.sleep(0.002)  # so that the two halves have different times, which are in milliseconds
    positions += await append(log, 20, 35)
    at = 20
    [claimed] = await log.claim("email", 1)
    where: Any = {"middle": claimed.event().at, "position": positions[7]}.get(start, start)
    lag = await log.lag("audit")
    await log.replay("email", where)
    committed = await log.commit(claimed)  # a claim from before the replay: this has no effect
    assert not (committed and engine == "jetstream")
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


@pytest.mark.parametrize("engine", ["streams"])
async def test_a_full_redis_refuses_an_event_at_the_start_of_a_minute_too(new_log: Any, valkey: Valkey) -> None:
    log = await new_log()
    await append(log, 1)
    for key in valkey.client.scan_iter("eventlog:ids:{stream}:*"):
        valkey.client.hset(key, "", 0)  # as if the ids were from another minute
    with full(valkey), pytest.raises(RedisError, match="maxmemory"):
        await log.append(an_event(1))
    assert await claim_all(log, "email") == [0]


@pytest.mark.parametrize("engine", ["streams"])
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
