"""Long lists of parked events."""

from typing import Any

import pytest

from eventlog import events
from eventlog import parked as parked_module
from tests.support.servers import Valkey

ENGINES = ["lua", "streams"]


async def parked(log: Any, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Park `count` events, one second apart."""
    for number in range(count):
        monkeypatch.setattr("eventlog.parked.time.time", lambda number=number: 1e9 + number)
        event = b'1 {"id": "%d", "name": "x", "data": {}}' % number
        claimed = events.Claimed("email", f"1-{number}", 1, event, 0.0)
        await log._parked_events.put(claimed, "no such mailbox")


def numbers(found: Any) -> list[int]:
    return [int(one.position.partition("-")[2]) for one in found]


async def test_a_list_reads_only_the_newest_events(log: Any, valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    await parked(log, 300, monkeypatch)
    await log.lag("email")
    before = valkey.client.info("commandstats")
    assert numbers(await log.parked("email", 50)) == list(range(299, 249, -1))
    after = valkey.client.info("commandstats")
    assert after["cmdstat_hgetall"] == before["cmdstat_hgetall"]
    assert (await log.lag("email")).parked == 300


async def test_all_parked_events_are_retried_in_steps(log: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parked_module, "STEP", 100)
    await parked(log, 250, monkeypatch)
    run, steps = log._scripts.run, []

    async def count(name: str, keys: Any, *words: Any) -> Any:
        if name == "unpark":
            steps.append(len(words))
        return await run(name, keys, *words)

    monkeypatch.setattr(log._scripts, "run", count)
    assert await log.unpark("email") == 250
    assert steps == [100, 100, 50]
    claimed = await log.claim("email", 1000)
    assert len(claimed) == 250
    for one in claimed[:240]:
        assert await log.commit(one)
    assert sorted(numbers(await log.parked("email", 50))) == sorted(numbers(claimed[240:])), (
        "committed events are not listed"
    )


async def test_a_discarded_event_is_deleted_and_its_retry_cannot_be_committed(
    log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await parked(log, 10, monkeypatch)
    assert await log.discard("email", "1-3", "1-99") == 1
    assert numbers(await log.parked("email")) == [9, 8, 7, 6, 5, 4, 2, 1, 0]
    assert await log.unpark("email", "1-4") == 1
    [claimed] = await log.claim("email", 10)
    assert await log.discard("email") == 9
    assert await log.parked("email") == []
    assert (await log.lag("email")).parked == 0
    assert not await log.commit(claimed)
