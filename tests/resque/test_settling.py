"""The number of slots, answers of Redis that are lost, and clocks that were set back."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.exceptions import ResponseError

import resque
from lab.harness.proxy import Proxy, a_proxy
from resque import claiming, show
from resque import slots as slots_module
from tests.support.programs import until
from tests.support.resque import Jobs, Resque

# The number of slots.


class Delay:
    """Replaces the measured delay of the event loop."""

    seconds = 0.0


async def test_slots_grow_with_the_work_and_shrink_when_the_loop_is_late(r: Resque, jobs: Jobs) -> None:
    for number in range(40):
        await r.queue.enqueue("q", "wait", [number])
    async with r.working(definitions=jobs.definitions(), scaling=resque.Scaling(1, 32)) as worker:
        worker._slots.delay = Delay()
        await until(lambda: worker.slots == 32)
        await until(lambda: worker.busy == 32)
        worker._slots.delay.seconds = 0.3
        await until(lambda: worker.slots < 32)
        worker._slots.delay.seconds = 0.0
        jobs.gate.set()
        await until(lambda: len(jobs.done) == 40)
    grown = [event.slots for event in r.events("Resized") if event.slots > event.before]
    assert grown == [2, 4, 8, 16, 32]
    shrunk = [event for event in r.events("Resized") if event.slots < event.before]
    assert "the event loop is" in shrunk[0].reason
    assert shrunk[0].slots == 24


async def test_removing_the_slot_of_a_job_that_ran_alone_does_not_block_the_others(
    r: Resque, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots_module, "LOOK_SECONDS", 60.0)  # only the test changes the number of slots
    monkeypatch.setattr(claiming, "IDLE_ASK_SECONDS", 60.0)
    async with r.working(definitions=jobs.definitions(), scaling=resque.Scaling(3, 3)) as worker:
        r.get("HSET", r.keys.crashes, "suspect", 2)
        await r.queue.enqueue("q", "wait", [{}], "suspect")
        await until(lambda: worker.busy == 1 and len(worker._slots.free) == 2)
        worker._slots.surplus = 1  # as when the loop was late during a claim call
        await r.queue.enqueue("q", "note", ["next"])
        jobs.gate.set()
        await until(lambda: ("next",) in jobs.done)
        assert worker.slots == 2


@pytest.mark.parametrize(
    ("slots", "busy", "delay", "more", "then"),
    [
        (1, 1, 0.0, True, 2),
        (64, 64, 0.0, True, 100),
        (8, 8, 0.0, False, 8),
        (8, 7, 0.0, True, 8),
        (8, 8, 0.007, True, 8),
        (8, 8, 0.02, True, 6),
        (2, 2, 0.02, True, 1),
        (1, 1, 9.0, True, 1),
        (0, 0, 0.0, False, 1),
    ],
)
def test_scaling_decides_the_number_of_slots(slots: int, busy: int, delay: float, more: bool, then: int) -> None:
    decided, reason = resque.Scaling(1, 100, 0.01).decide(slots, busy, delay, more=more)
    assert decided == then
    assert bool(reason) == (decided != slots or delay > 0.01)


def test_idle_slots_are_removed_slowly() -> None:
    scaling = resque.Scaling(4, 100)
    decisions = [scaling.decide(40, 3, 0.0, more=False)[0] for _ in range(100)]
    assert decisions.count(30) == 2
    assert decisions.count(40) == 98


async def test_counters_that_are_not_numbers_do_not_prevent_settling(r: Resque, jobs: Jobs) -> None:
    for key in (r.keys.processed(), r.keys.failures(), r.keys.totals):
        r.get("SET", key, "no number")
    jobs.errors = [resque.Permanent("no")]
    async with r.working(definitions=jobs.definitions()) as worker:
        for number in range(3):
            await r.queue.enqueue("q", "note", [number])
        await until(lambda: len(jobs.done) == 2 and r.events("Failed") and not worker.busy)
    assert len(r.failed()) == 1
    assert len(r.events("Succeeded")) == 2


# Lost answers: the worker repeats the call and gets the result.


async def test_a_repeated_settlement_returns_the_first_result(r: Resque) -> None:
    ways: list[Callable[[Any, Any], Awaitable[bool]]] = [
        lambda reserve, claim: reserve.acknowledge(claim),
        lambda reserve, claim: reserve.give_up(claim, "ValueError", "no", []),
        lambda reserve, claim: reserve.retry(claim, 1000),
    ]
    for settle in ways:
        await r.queue.enqueue("q", "note", [1])
        reserve = r.claims()
        [claim] = (await reserve.take(await r.slots(), busy=False)).claims
        assert await settle(reserve, claim)
        assert await settle(reserve, claim), "the same again, because its answer got lost"
        r.get("SREM", r.keys.workers, claim.slot.id)
        assert not await settle(reserve, claim), "now it counts as dead, and another worker has the job"
    totals = await r.observer.totals()
    assert (totals["succeeded"], totals["failed"], totals["retried"], totals["late"]) == (1, 1, 1, 3)
    assert (len(r.failed()), len(await r.queue.delayed())) == (1, 1)


async def test_a_lost_answer_to_give_up_still_causes_an_event(r: Resque, jobs: Jobs) -> None:
    jobs.errors = [resque.Permanent("no")]
    async with a_proxy(r.valkey.port) as proxy, resque.open_connections(proxy.url) as connections:
        cut: Proxy = proxy
        async with r.working(definitions=jobs.definitions(), connections=connections) as worker:
            await r.scripts._load()
            cut.at(worker._claims._scripts._scripts["give_up"].sha)
            await r.queue.enqueue("q", "note", [1])
            await until(lambda: r.events("Failed"))
            assert cut.times == 1
    assert len(r.failed()) == 1


# Redis's clock was set back: times too far in the future count as now.


async def test_a_throttle_in_the_future_counts_as_now(r: Resque, jobs: Jobs) -> None:
    r.get("SET", r.keys.throttle("q"), int((time.time() + 7200) * 1000))
    await r.queue.enqueue("q", "note", [1])
    async with r.working(definitions=jobs.definitions(), per_second=2.0):
        await until(lambda: jobs.done)


async def test_leases_from_before_the_clock_was_set_back_end_soon(r: Resque) -> None:
    await r.queue.enqueue("q", "note", [1])
    [slot] = slots = await r.slots()
    await r.claims().take(slots, busy=False)
    future = int((time.time() + 7200) * 1000)
    r.get("ZADD", r.keys.leases, future, slot.id)
    r.get("HSET", r.keys.reaping, "looked", future, "from", future)
    await until(r.housekeeping(lease_seconds=0.2).reap, "the job of the dead worker is recovered")
    assert len(r.waiting()) == 1


async def test_a_job_that_could_not_be_enqueued_holds_no_lock(r: Resque, jobs: Jobs) -> None:
    definitions = jobs.definitions(unique=lambda email: email["to"])
    queue = r.new_queue(**definitions)
    r.get("SET", r.keys.queue("q"), "no list")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await queue.enqueue("q", "note", [{"to": "alice"}])
    r.get("DEL", r.keys.queue("q"))
    assert await queue.enqueue("q", "note", [{"to": "alice"}])


async def test_a_pause_without_a_limit_outlasts_a_timed_one(r: Resque) -> None:
    await r.queue.pause("q", "the operator's", None)
    await r.queue.pause("q", "the login failed", 5)
    await r.queue.resume("q", only_timed=True)
    assert await r.queue.paused("q") == "the operator's"
    await r.queue.resume("q")
    await r.queue.pause("q", "the login failed", 5)
    await r.queue.resume("q", only_timed=True)
    assert await r.queue.paused("q") is None


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (59.6, "1 min 0 s"),
        (119.9, "2 min 0 s"),
        (3599.7, "1 h 0 min"),
        (86399.9, "1 d 0 h"),
        (9.97, "10 s"),
        (0.9996, "1.0 s"),
        (3.21, "3.2 s"),
    ],
)
def test_no_duration_has_sixty_seconds(seconds: float, shown: str) -> None:
    assert show.duration(seconds) == shown
