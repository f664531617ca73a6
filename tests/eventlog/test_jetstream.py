"""The log on JetStream: what test_event_log.py asks of Redis, asked of NATS, and what only NATS needs."""

import asyncio
import time
from typing import Any

import pytest

from eventlog.errors import LogError, NotTaken
from eventlog.jetstream import JetStreamLog
from eventlog.nats_beats import Beats
from tests.support.event_log import LEASE, an_event, append, claim_all, claim_when_due, commit, numbers
from tests.support.programs import LIMIT, frozen, until
from tests.support.servers import NatsServer

ENGINES = ["jetstream"]

# Appending


async def test_a_frozen_server_leaves_the_append_in_doubt_and_the_id_makes_it_safe_to_repeat(
    log: Any, nats: NatsServer
) -> None:
    event = an_event(1)
    with frozen(nats.pid), pytest.raises(LogError, match="NATS") as raised:
        await log.append(event)
    assert not isinstance(raised.value, NotTaken), "it may have been stored"
    async with asyncio.timeout(LIMIT):
        while True:
            try:
                await log.append(event)
                break
            except LogError:
                await asyncio.sleep(0.05)
    assert await claim_all(log, "email") == [1]


async def test_without_a_connection_nothing_is_taken() -> None:
    async with JetStreamLog("nats://127.0.0.1:1", LEASE) as log:
        for call in (log.append(an_event()), log.claim("email", 1), log.check(), log.lag("email")):
            with pytest.raises(NotTaken, match="NATS: cannot connect"):
                await call


@pytest.mark.parametrize(("limit", "reached"), [("max_msgs", "messages"), ("max_bytes", "bytes")])
async def test_a_full_stream_refuses_and_never_drops(log: Any, limit: str, reached: str) -> None:
    await append(log, 3)
    await log.check()
    found = await log.nats.api(f"STREAM.INFO.{log.name}")
    await log.nats.api(f"STREAM.UPDATE.{log.name}", **found["config"] | {limit: found["state"][reached]})
    with pytest.raises(NotTaken, match=f"maximum {reached} exceeded"):
        await log.append(an_event(3))
    with pytest.raises(NotTaken, match="has reached its limit"):
        await log.check()
    assert await claim_all(log, "email") == [0, 1, 2]


# Leases


async def test_a_heartbeat_in_a_thread_keeps_the_leases(new_log: Any, nats: NatsServer) -> None:
    alive, other = await new_log(lease=2.0), await new_log(lease=2.0)
    await append(alive, 2)
    held = await alive.claim("email", 2)
    with Beats(nats.url) as beats:
        deadline = time.monotonic() + 3.0  # longer than a lease
        while time.monotonic() < deadline:
            alive.extend(beats, held)  # this blocks the loop, as a handler may
            assert await other.claim("email", 2, wait=0.2) == []
    taken = await claim_when_due(other, "email")
    assert {one.attempts for one in taken} == {2}


async def test_a_lease_that_ended_while_the_server_did_not_hear_the_heartbeat_is_not_claimed_twice(
    new_log: Any,
) -> None:
    class Unheard:
        def send(self, subjects: list[str], payload: bytes) -> None: ...

    log = await new_log(lease=0.5)
    await append(log, 1)
    [one] = await log.claim("email", 1)
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        log.extend(Unheard(), [one])
        assert await log.claim("email", 1, wait=0.1) == [], "this process handles it still"
    assert await log.commit(one)
    other = await new_log(lease=0.5)
    assert await other.claim("email", 1, wait=1.0) == []


async def test_an_event_whose_lease_has_ended_is_not_given_back_or_parked(new_log: Any) -> None:
    """The server would accept both, although the event already has another owner."""
    first, second = await new_log(lease=0.5), await new_log(lease=0.5)
    await append(first, 1)
    [claimed] = await first.claim("email", 10)
    [taken_over] = await until(lambda: second.claim("email", 10), "the lease has ended")
    assert not await first.put_back(claimed, 0.0)
    assert not await first.park(claimed, "refused")
    assert await first.parked("email") == []
    assert await second.commit(taken_over)
    assert await first.commit(claimed), "JetStream has no fencing token"


async def test_failures_and_when_the_next_attempt_is_due_are_noted(log: Any) -> None:
    await append(log, 1)
    [one] = await log.claim("email", 1)
    assert await log.delay(one, 0.5, failures=1)
    assert await log.claim("email", 1) == []
    [again] = await claim_when_due(log, "email")
    assert again.attempts == 2
    [(due, failures)] = (await log.delays("email", [again])).values()
    assert (due <= 0.05, failures) == (True, 1)
    await log.commit(again)
    await log.forget_delays([again])
    assert await log._notes.keys("tries.email") == []


async def test_after_the_clock_of_a_worker_was_set_back_a_delay_has_ended(
    log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await append(log, 1)
    [one] = await log.claim("email", 10)
    assert await log.delay(one, 0.5, failures=1)
    [again] = await claim_when_due(log, "email")
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 7200)
    [(due, failures)] = (await log.delays("email", [again])).values()
    assert (due, failures) == (0.0, 1)


async def test_an_event_that_kills_its_workers_comes_alone_and_only_that_counts(new_log: Any) -> None:
    await append(await new_log(), 4)
    for _ in range(2):
        log = await new_log(lease=0.3)
        claimed: list[Any] = []
        while len(claimed) < 4:
            claimed += await log.claim("email", 10, wait=1.0)
    log = await new_log(lease=0.3)
    [first] = await claim_when_due(log, "email")
    assert (first.alone, first.attempts) == (True, 3)
    log = await new_log(lease=0.3)  # the one before it was killed too
    seen: dict[int, int] = {}
    while len(seen) < 4:
        [one] = await claim_when_due(log, "email")
        assert one.alone
        seen |= {numbers([one])[0]: one.attempts}
        await log.commit(one)
    assert seen.pop(numbers([first])[0]) == 4
    assert set(seen.values()) == {3}, "the others have not been handled alone yet"


async def test_a_delivery_that_a_killed_server_has_forgotten_is_not_committed_and_holds_nothing_up(log: Any) -> None:
    await append(log, 2)
    [one] = await log.claim("email", 1)
    forgotten = one._replace(reply=one.reply.replace(".1.1.1.", ".1.2.2."))
    assert not await log.commit(forgotten)
    assert await log.commit(one)
    assert await claim_all(log, "email") == [1]


# Replay and retention


async def test_a_consumer_that_left_begins_at_the_beginning(log: Any) -> None:
    await append(log, 3)
    await claim_all(log, "email")
    await log.replay("email", "end")
    await log.leave("email")
    assert await log.consumers() == []
    assert await claim_all(log, "email") == [0, 1, 2]


async def test_what_everybody_has_done_can_be_trimmed_and_no_more(log: Any, caplog: pytest.LogCaptureFixture) -> None:
    await append(log, 45)
    await claim_all(log, "email")
    claimed = await log.claim("audit", 15)
    await commit(log, claimed[:12])
    assert (await log.trim(older_than=3600)).events == 0
    trimmed = await log.trim(older_than=0)
    assert (trimmed.events, trimmed.kept_for) == (12, "audit")
    assert await commit(log, claimed[12:]) == [True] * 3
    forced = await log.trim(older_than=0, force=True)
    assert forced.events == 33
    assert "audit was overtaken: 30 events" in caplog.text
    assert await claim_all(log, "audit") == []
