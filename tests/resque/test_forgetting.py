"""The counts of a job end with it, also if another program finishes it; and no wait depends on a wrong clock."""

import time

import pytest

from tests.support.programs import until
from tests.support.resque import Resque

RAW = '{"class":"note","args":[1]}'


async def crash(r: Resque) -> None:
    """A worker of ours takes the job and dies. The job is back in its queue."""
    r.get("RPUSH", r.keys.queue("q"), RAW)
    assert (await r.claims().take(await r.slots(lease_seconds=0.02), busy=False)).claims
    await until(r.housekeeping().reap)


async def fail(r: Resque) -> None:
    """The job fails in a worker of ours. It is delayed."""
    r.get("RPUSH", r.keys.queue("q"), RAW)
    [claim] = (await r.claims().take(await r.slots(), busy=False)).claims
    assert await r.claims().retry(claim, 0.0)


def counts(r: Resque) -> int:
    return sum(r.get("HLEN", key) for key in (r.keys.attempts, r.keys.crashes, r.keys.counted))


def let_time_pass(r: Resque) -> None:
    """Make the counts a minute older."""
    for key, value in r.get("HGETALL", r.keys.counted).items():
        second, _, queue = value.partition(" ")
        older = str(int(second) - 60)
        r.get("HSET", r.keys.counted, key, f"{older} {queue}")
        if r.get("EXISTS", r.keys.delayed(int(second))):
            r.get("RENAME", r.keys.delayed(int(second)), r.keys.delayed(int(older)))
            r.get("ZADD", r.keys.schedule, older, older)


@pytest.mark.parametrize("begin", [crash, fail])
async def test_the_counts_of_a_job_that_another_program_finishes_are_forgotten(r: Resque, begin: object) -> None:
    await begin(r)  # type: ignore[operator]
    housekeeping = r.housekeeping()
    let_time_pass(r)
    assert (await housekeeping.forget_counts(), counts(r)) == (0, 2), "the job waits"
    await until(lambda: r.waiting() or housekeeping.promote(), "it is in its queue")
    assert (await housekeeping.forget_counts(), counts(r)) == (0, 2)
    assert r.get("LPOP", r.keys.queue("q")), "a worker of another program takes and finishes it"
    assert await housekeeping.forget_counts() == 1
    assert not [key for key in r.all_keys() if key in ("py:attempts", "py:crashes", "py:counted")]


async def test_the_counts_of_a_job_that_runs_or_may_be_on_its_way_are_kept(r: Resque) -> None:
    await crash(r)
    r.get("LPOP", r.keys.queue("q"))
    assert (await r.housekeeping().forget_counts(), counts(r)) == (0, 2), "another scheduler may be moving it"
    r.get("RPUSH", r.keys.queue("q"), RAW)
    [claim] = (await r.claims().take(await r.slots(), busy=False)).claims
    let_time_pass(r)
    assert (await r.housekeeping().forget_counts(), counts(r)) == (0, 2), "a worker of ours runs it"
    await r.claims().acknowledge(claim)
    await r.housekeeping().forget_counts()
    assert counts(r) == 0


async def test_many_counts_are_read_in_several_calls(r: Resque) -> None:
    for number in range(1000):
        r.get("HSET", r.keys.attempts, f"job {number}", 1)
        r.get("HSET", r.keys.counted, f"job {number}", "1 q")
    housekeeping, calls = r.housekeeping(), 0
    while counts(r):
        assert await housekeeping.forget_counts() <= 200
        calls += 1
        assert calls < 100
    assert calls > 1


async def test_a_timed_pause_does_not_become_longer_when_the_clock_of_redis_is_set_back(r: Resque) -> None:
    """Redis stores the time at which a key expires, so the pause would last until that time comes again."""
    for queue in ("timed", "for good"):
        await r.queue.declare(queue)
    await r.queue.pause("timed", "the login failed", 7200 + 30)
    await r.queue.pause("for good", "the operator's", None)
    r.get("HSET", r.keys.reaping, "looked", int((time.time() + 7200) * 1000))
    await r.housekeeping().reap()
    assert 0 < r.get("PTTL", r.keys.paused("timed")) <= 31_000
    assert r.get("PTTL", r.keys.paused("for good")) == -1


async def test_the_pause_before_an_attempt_is_measured_by_the_clock_of_redis(
    r: Resque, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = time.time() + 7200
    monkeypatch.setattr("resque.claims.time.time", lambda: ahead)
    await fail(r)
    monkeypatch.undo()
    await until(r.housekeeping().promote, "the job is due at once")
