"""While jobs are being acknowledged, the worker already claims the next ones for their slots."""

from collections.abc import Sequence
from typing import Any

import pytest
from redis.exceptions import ResponseError

import resque
from lab.harness.proxy import a_proxy
from resque import claiming
from resque.scripts import Call, Scripts
from tests.support.programs import until
from tests.support.resque import Jobs, Resque

JOBS = 60


@pytest.fixture
async def r(r: Resque) -> Resque:
    for number in range(JOBS):
        await r.queue.enqueue("q", "note", [number])
    return r


@pytest.fixture(autouse=True)
def only_events_end_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claiming, "IDLE_ASK_SECONDS", 3600.0)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The scripts of each write."""
    found: list[list[str]] = []
    send = Scripts._send

    async def sending(scripts: Scripts, calls: Sequence[Call]) -> list[Any]:
        found.append([call.name for call in calls])
        return await send(scripts, calls)

    monkeypatch.setattr(Scripts, "_send", sending)
    return found


async def all_done_once(r: Resque, jobs: Jobs, worker: Any) -> None:
    await until(lambda: len(jobs.done) >= JOBS and not worker.busy)
    assert sorted(jobs.done) == [(number,) for number in range(JOBS)]
    totals = await r.observer.totals()
    assert (totals["succeeded"], totals["late"], r.waiting()) == (JOBS, 0, [])
    await until(lambda: len(worker._slots.free) == worker.slots == 4, "every slot is free again")


async def test_one_write_acknowledges_jobs_and_claims_the_next(r: Resque, jobs: Jobs, writes: list[list[str]]) -> None:
    async with r.working(definitions=jobs.definitions(), scaling=resque.Scaling(4, 4)) as worker:
        await all_done_once(r, jobs, worker)
    acknowledging = [names for names in writes if "acknowledge" in names]
    together = [names for names in acknowledging if names.index("acknowledge") < len(names) - 1 and "claim" in names]
    assert len(together) > len(acknowledging) / 2


async def test_an_acknowledgement_that_fails_runs_no_job_twice(
    r: Resque, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim in the same write returns the jobs of these slots again."""
    send, failures = Scripts._send, 3

    async def refusing(scripts: Scripts, calls: Sequence[Call]) -> list[Any]:
        nonlocal failures
        names = [call.name for call in calls]
        if failures == 0 or not {"acknowledge", "claim"} <= set(names):
            return await send(scripts, calls)
        failures -= 1
        answers = iter(await send(scripts, [call for call in calls if call.name != "acknowledge"]))
        return [ResponseError("OOM") if name == "acknowledge" else next(answers) for name in names]

    monkeypatch.setattr(Scripts, "_send", refusing)
    async with r.working(definitions=jobs.definitions(), scaling=resque.Scaling(4, 4)) as worker:
        await all_done_once(r, jobs, worker)
    assert failures == 0


async def test_lost_answers_to_both_run_no_job_twice(r: Resque, jobs: Jobs) -> None:
    """The acknowledgement is repeated after the slots have got their next jobs."""
    async with a_proxy(r.valkey.port) as proxy, resque.open_connections(proxy.url) as connections:
        await r.scripts._load()
        proxy.at(r.scripts._scripts["acknowledge"].sha)
        scaling = resque.Scaling(4, 4)
        async with r.working(definitions=jobs.definitions(), scaling=scaling, connections=connections) as worker:
            await all_done_once(r, jobs, worker)
            assert proxy.times == 1
