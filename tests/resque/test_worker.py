"""The worker's side of the queue: how jobs end, and how the jobs of a dead worker are recovered."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from redis.exceptions import ResponseError

import resque
from asynckit.tasks import end_tasks
from lab.harness.proxy import Proxy, a_proxy
from resque import claiming, claims, registration, show, wire
from resque import slots as slots_module
from tests.support.programs import Valkey, running_valkey, until
from tests.support.resque import Definition, Resque, a_resque

WORKER_KEYS = ["py:attempts", "py:crashes", "py:leases", "py:unreadable", "workers", "workers:heartbeat"]


@pytest.fixture
async def r(valkey: Valkey) -> AsyncIterator[Resque]:
    async with a_resque(valkey) as r:
        yield r


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[Resque]:
    """A Valkey of the test's own, for tests that affect the whole server."""
    with running_valkey(tmp_path / "own") as valkey:
        async with a_resque(valkey) as r:
            yield r


class Jobs:
    """Jobs that raise, wait or return as the test demands, and record their arguments."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.errors: list[BaseException] = []
        """The errors that the next calls raise."""
        self.gate = asyncio.Event()

    async def note(self, *args: Any) -> int:
        if self.errors:
            raise self.errors.pop(0)
        self.done.append(args)
        return len(self.done)

    async def wait(self, *args: Any) -> None:
        await self.gate.wait()
        self.done.append(args)

    def definitions(self, **more: Any) -> dict[str, Any]:
        return {"note": Definition(self.note, **more), "wait": Definition(self.wait)}


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


# How jobs end.


async def test_a_finished_job_leaves_no_keys(r: Resque, jobs: Jobs) -> None:
    await r.queue.enqueue("q", "note", [{"name": "Alice"}, 2], "one")
    async with r.working(definitions=jobs.definitions()):
        await until(lambda: r.events("Succeeded"))
        assert jobs.done == [({"name": "Alice", "id": "one"}, 2)]
    assert not any(key in WORKER_KEYS or key.startswith("worker:") for key in r.all_keys()), r.all_keys()
    assert (r.get("GET", r.keys.processed()), r.get("GET", r.keys.failures())) == ("1", None)
    assert (await r.observer.totals())["succeeded"] == 1


async def test_a_running_job_is_visible_with_its_worker(r: Resque, jobs: Jobs) -> None:
    await r.queue.enqueue("q", "wait", [1])
    async with r.working(definitions=jobs.definitions(), scaling=resque.Scaling(1, 1)):
        [worker] = await until(r.observer.workers)
        await until(lambda: r.observer.in_flight())
        [worker] = await r.observer.workers()
        assert worker.job
        assert (worker.job.name, worker.job.args, worker.queues) == ("wait", [1], "q")
        assert worker.alive
        assert worker.ours
        assert r.waiting() == []
        jobs.gate.set()


async def test_the_events_cover_a_job_s_whole_life(r: Resque, jobs: Jobs) -> None:
    jobs.errors = [ValueError("not yet")]
    await r.queue.enqueue("q", "note", [{}], "one")
    async with r.working(definitions=jobs.definitions(base_seconds=0.001), scaling=resque.Scaling(1, 1)):
        await until(lambda: r.events("Succeeded"))
    kinds = [type(event).__name__ for event in r.seen if type(event).__name__ != "Polled"]
    assert kinds == ["Started", "JobStarted", "Reenqueued", "Promoted", "JobStarted", "Succeeded", "Ended"]
    first, second = r.events("JobStarted")
    assert (first.attempt, second.attempt) == (1, 2)
    [reenqueued] = r.events("Reenqueued")
    assert (reenqueued.job.id, str(reenqueued.error)) == ("one", "not yet")
    assert r.events("Succeeded")[0].result == 1
    assert r.get("HGETALL", r.keys.attempts) == {}, "what has ended well is not counted any more"


async def test_the_first_queue_goes_first(r: Resque, jobs: Jobs) -> None:
    for queue in ("low", "high"):
        for number in range(3):
            await r.queue.enqueue(queue, "note", [queue, number])
    async with r.working(["high", "low"], definitions=jobs.definitions()):
        await until(lambda: len(jobs.done) == 6)
    assert jobs.done == [(queue, number) for queue in ("high", "low") for number in range(3)]


async def test_a_job_that_keeps_failing_goes_to_the_failed_list_after_its_attempts(r: Resque, jobs: Jobs) -> None:
    jobs.errors = [ValueError("first"), ValueError("second")]
    await r.queue.enqueue("q", "note", [{}], "one")
    async with r.working(definitions=jobs.definitions(attempts=2, base_seconds=0.001)):
        await until(lambda: r.events("Failed"))
    [record] = r.failed()
    assert (record["exception"], record["error"], record["queue"]) == ("ValueError", "second", "q")
    assert record["payload"] == {"class": "note", "queue": "q", "args": [{"id": "one"}]}
    assert any("raise self.errors.pop(0)" in line for line in record["backtrace"])
    assert (r.get("HGETALL", r.keys.attempts), jobs.done) == ({}, [])
    assert (await r.observer.totals())["retried"] == 1


async def test_a_permanent_error_is_not_retried(r: Resque, jobs: Jobs) -> None:
    jobs.errors = [resque.Permanent("no such recipient")]
    await r.queue.enqueue("q", "note", [])
    async with r.working(definitions=jobs.definitions()):
        await until(lambda: r.events("Failed"))
    assert [record["error"] for record in r.failed()] == ["no such recipient"]
    assert r.events("Reenqueued") == []


async def test_an_unknown_class_fails_and_is_never_imported(r: Resque, jobs: Jobs) -> None:
    await r.queue.enqueue("q", "os.system", ["true"])
    async with r.working(definitions=jobs.definitions()):
        await until(lambda: r.events("Failed"))
    [record] = r.failed()
    assert (record["exception"], record["error"]) == ("UnknownClass", 'no definition for the class "os.system"')


INVALID = [
    b"", b"invalid", b"\x80\x04\x95pickle", b"null", b"1", b"[]", b'"text"', b"[" * 100_000, b'{"a":' * 5_000,
    b"\xff\xfe", b'{"class": NaN}', b"{}", b'{"class": 1}', b'{"class": ""}', b'{"class": "note", "args": [NaN]}',
    b'{"x": "\xff"}', b'{"class": "note", "args": ["' + b"x" * 10_000_000 + b'"]}',
]  # fmt: skip


async def test_an_invalid_job_is_set_aside_and_the_worker_continues(r: Resque, jobs: Jobs) -> None:
    r.get("RPUSH", r.keys.queue("q"), *INVALID)
    await r.queue.enqueue("q", "note", ["good"])
    async with r.working(definitions=jobs.definitions()):
        await until(lambda: jobs.done and len(r.events("Failed")) == len(INVALID))
    records = r.failed()
    assert len(records) == len(INVALID)
    assert {record["exception"] for record in records} == {"BadJob"}
    assert all(record["payload"]["class"] == "Unreadable" and "raw" in record for record in records)
    assert any(len(record["raw"]) > 10_000_000 for record in records), "the whole job is kept"
    assert (jobs.done, r.events("Erred")) == ([("good",)], [])


async def test_many_invalid_jobs_delay_neither_jobs_nor_housekeeping(r: Resque, jobs: Jobs) -> None:
    r.get("RPUSH", r.keys.queue("q"), *["invalid"] * 350)
    await r.queue.enqueue("q", "note", ["good"])
    async with r.working(definitions=jobs.definitions()):
        await until(lambda: jobs.done)
        await until(lambda: len(r.events("Failed")) == 350)


async def test_jobs_of_other_programs_are_run(r: Resque, jobs: Jobs) -> None:
    for raw in ('{"class":"note","args":[1]}', '{"args":{"a":1},"class":"note","id":"php"}', '{"class":"note"}'):
        r.get("RPUSH", r.keys.queue("q"), raw)
    r.get("RPUSH", r.keys.queue("q"), '{"class": "note", "queue": "q", "args": null}')
    r.get("RPUSH", r.keys.queue("q"), ' \t\r\n{\n "class": "note",\n "args": [2]\n}\n')
    async with r.working(definitions=jobs.definitions()):
        await until(lambda: len(jobs.done) == 5)
    assert jobs.done == [(1,), ({"a": 1},), (), (), (2,)]
    assert r.failed() == []


async def test_arguments_that_do_not_fit_are_not_tried_again(r: Resque) -> None:
    async def send(to: str, subject: str = "") -> None:
        raise TypeError("an error of the job itself")

    for args in ([], ["a", "b", "c"], ["a"]):
        await r.queue.enqueue("q", "send", args)
    send_definition = Definition(send, attempts=2, base_seconds=0.01, cap_seconds=0.01)
    async with r.working(definitions={"send": send_definition, "max": Definition(max, attempts=1)}):
        await r.queue.enqueue("q", "max", [[1, 2]])  # a function of C without a signature
        await until(lambda: len(r.events("Failed")) == 3 and r.events("Succeeded"))
    failed = {len(one["payload"]["args"]): (one["exception"], one["error"]) for one in r.failed()}
    assert failed == {
        0: ("BadArguments", "missing a required argument: 'to'"),
        3: ("BadArguments", "too many positional arguments"),
        1: ("TypeError", "an error of the job itself"),
    }
    assert len(r.events("Reenqueued")) == 1


async def test_a_job_has_a_time_limit(r: Resque, jobs: Jobs) -> None:
    await r.queue.enqueue("q", "wait", [])
    definitions = {"wait": Definition(jobs.wait, time_limit=0.05, attempts=1)}
    async with r.working(definitions=definitions):
        await until(lambda: r.events("Failed"))
    assert [(f["exception"], f["error"]) for f in r.failed()] == [("TimeoutError", "not done within 0.05 s")]


async def test_a_job_that_cancels_itself_fails(r: Resque, jobs: Jobs) -> None:
    jobs.errors = [asyncio.CancelledError("its own doing")]
    await r.queue.enqueue("q", "note", [])
    async with r.working(definitions=jobs.definitions(attempts=1)):
        await until(lambda: r.events("Failed"))


async def test_wait_and_repeat_counts_no_attempt(r: Resque, jobs: Jobs) -> None:
    jobs.errors = [resque.WaitAndRepeat()] * 7
    await r.queue.enqueue("q", "note", ["at last"])
    async with r.working(definitions=jobs.definitions(attempts=1)):
        await until(lambda: jobs.done)
    assert (jobs.done, r.failed()) == ([("at last",)], [])


def in_a_thread(number: int) -> int:
    time.sleep(0)
    return number + 1


async def test_plain_functions_run_in_a_thread_and_in_a_process(r: Resque) -> None:
    definitions = {"thread": Definition(in_a_thread), "process": Definition(in_a_thread, in_process=True)}
    for name in definitions:
        await r.queue.enqueue("q", name, [41])
    async with r.working(definitions=definitions, processes=1):
        await until(lambda: len(r.events("Succeeded")) == 2)
    assert [event.result for event in r.events("Succeeded")] == [42, 42]


async def test_plug_ins_may_drop_a_job_and_see_its_result(r: Resque, jobs: Jobs) -> None:
    ended = []

    class Watch(resque.Plugin):
        async def before_perform(self, job: resque.Job) -> bool:
            return bool(job.args != ["drop"])

        async def after_perform(self, job: resque.Job, error: BaseException | None) -> None:
            ended.append((job.args, error))

    for word in ("drop", "do", "fail"):
        await r.queue.enqueue("q", "note", [word])
    error = ValueError("no")
    definitions = jobs.definitions(plugins=[Watch()], attempts=1)
    async with r.working(definitions=definitions, scaling=resque.Scaling(1, 1)):
        await until(lambda: len(r.events("Succeeded")) == 3)
        jobs.errors = [error]
        await r.queue.enqueue("q", "note", ["fail"])
        await until(lambda: r.events("Failed"))
    assert jobs.done == [("do",), ("fail",)]
    assert ended == [(["do"], None), (["fail"], None), (["fail"], error)]


async def test_a_unique_job_may_be_enqueued_again_when_the_first_has_ended(r: Resque, jobs: Jobs) -> None:
    definitions = jobs.definitions(unique=lambda job: job["kind"], attempts=1)
    queue = r.new_queue(**definitions)

    def ended(number: int) -> bool:
        return len(r.events("Succeeded")) + len(r.events("Failed")) == number

    async with r.working(definitions=definitions):
        for number, fails in enumerate([False, True, False], 1):
            jobs.errors = [ValueError("no")] if fails else []
            assert await queue.enqueue("q", "note", [{"kind": "a"}])
            await until(partial(ended, number))


# Waking, pausing, throttling.


async def test_a_push_by_any_program_wakes_an_idle_worker(r: Resque, jobs: Jobs) -> None:
    async with r.working(["other", "q"], definitions=jobs.definitions(), scaling=resque.Scaling(1, 1)):
        await until(lambda: r.events("Polled"))
        polled = len(r.events("Polled"))
        r.get("RPUSH", r.keys.queue("q"), '{"class":"note","args":[1]}')
        await until(lambda: jobs.done)
        assert len(r.events("Polled")) <= polled + 2, "it was woken, and did not look again and again"


async def test_no_worker_claims_jobs_of_a_paused_queue(r: Resque, jobs: Jobs) -> None:
    await r.queue.pause("q", "the login failed", 60)
    await r.queue.enqueue("q", "note", [1])
    async with r.working(["q", "other"], definitions=jobs.definitions()):
        await until(lambda: r.events("Paused"))
        await r.queue.enqueue("other", "note", [2])
        await until(lambda: jobs.done == [(2,)])
        assert len(r.waiting()) == 1
        await r.queue.resume("q")
        await until(lambda: jobs.done == [(2,), (1,)])
    assert [event.reason for event in r.events("Paused")] == ["the login failed", None]


async def test_ruby_s_pause_of_all_workers_applies_to_ours(r: Resque, jobs: Jobs) -> None:
    r.get("SET", r.keys.pause_all, "True")
    await r.queue.enqueue("q", "note", [1])
    async with r.working(definitions=jobs.definitions()):
        await until(lambda: r.events("Paused"))
        assert len(r.waiting()) == 1
        r.get("DEL", r.keys.pause_all)
        await until(lambda: jobs.done)


async def test_all_workers_of_a_queue_share_one_throttle(r: Resque, jobs: Jobs) -> None:
    for number in range(15):
        await r.queue.enqueue("q", "note", [number])
    working = partial(r.working, definitions=jobs.definitions(), per_second=0.001)  # the second job in 1,000 s
    async with working(), working():
        await until(lambda: jobs.done)
    assert jobs.done == [(0,)]
    assert [wire.read_job(raw).args for raw in r.waiting()] == [[number] for number in range(1, 15)]


# Shutdown and death of a worker.


async def test_on_shutdown_running_jobs_finish_and_no_new_job_starts(r: Resque, jobs: Jobs) -> None:
    await r.queue.enqueue("q", "wait", [1])
    async with r.working(definitions=jobs.definitions(), scaling=resque.Scaling(1, 1)) as worker:
        await until(lambda: worker.busy)
        await r.queue.enqueue("q", "wait", [2])
        asyncio.get_running_loop().call_later(0.05, jobs.gate.set)
    assert jobs.done == [(1,)]
    assert [wire.read_job(raw).args for raw in r.waiting()] == [[2]]


async def test_a_job_that_does_not_finish_in_time_is_released_to_the_head_of_its_queue(r: Resque, jobs: Jobs) -> None:
    async with r.working(definitions=jobs.definitions(), drain_seconds=0.05) as worker:
        await r.queue.enqueue("q", "wait", ["slow"])
        await until(lambda: worker.busy)
        await r.queue.pause("q", "so that the next one waits", 60)
        await r.queue.enqueue("q", "wait", ["next"])
    assert [wire.read_job(raw).args for raw in r.waiting()] == [["slow"], ["next"]]
    assert not any(key.startswith("worker") for key in r.all_keys())


async def test_the_jobs_of_a_dead_worker_are_recovered_when_its_lease_ends(r: Resque, jobs: Jobs) -> None:
    for number in range(3):
        await r.queue.enqueue("q", "note", [number])
    answer = await r.claims().take(await r.slots(2, lease_seconds=0.2), busy=False)
    assert [claim.job.args for claim in answer.claims] == [[0], [1]]
    async with r.working(definitions=jobs.definitions()):
        await until(lambda: len(jobs.done) == 3)
    assert {event.outcome for event in r.events("CleanedWorker")} == {"its job is back in q"}
    assert [key for key in r.all_keys() if key in WORKER_KEYS or key.startswith("worker:")] == []


async def test_a_cancelled_registration_leaves_no_keys(r: Resque) -> None:
    registered = asyncio.Event()

    async def scripts(name: str, *words: Any) -> Any:
        answer = await r.scripts(name, *words)
        if name == "register":
            registered.set()
            await asyncio.Event().wait()  # the answer has not arrived
        return answer

    cut_off = registration.Registration(cast(Any, scripts), r.connections.thread, r.keys, ("q",), 5.0, lambda: None)
    adding = asyncio.create_task(cut_off.add(2))
    await registered.wait()
    assert r.get("ZCARD", r.keys.leases) == 2
    await end_tasks([adding])
    await cut_off.remove(list(cut_off.slots.values()))
    assert [key for key in r.all_keys() if key in WORKER_KEYS or key.startswith("worker:")] == []


async def test_a_worker_whose_lease_has_ended_can_neither_claim_nor_settle(r: Resque) -> None:
    await r.queue.enqueue("q", "note", [1])
    slots, stale = await r.slots(lease_seconds=0.05), r.claims()
    [claim] = (await stale.take(slots, busy=False)).claims
    await until(r.housekeeping().reap)
    with pytest.raises(claims.LeaseLost):
        await stale.take(slots, busy=False)
    assert not await stale.acknowledge(claim)
    assert not await stale.retry(claim, 1)
    assert not await stale.give_up(claim, "ValueError", "no", [])
    assert not await stale.release(claim)
    assert (len(r.waiting()), r.failed(), await r.queue.delayed()) == (1, [], [])
    assert (await r.observer.totals())["late"] == 3


async def test_no_worker_settles_the_claim_of_another(r: Resque) -> None:
    await r.queue.enqueue("q", "note", [1])
    [claim] = (await r.claims().take(await r.slots(), busy=False)).claims
    claim.token, token = "another", claim.token
    assert not await r.claims().acknowledge(claim)
    claim.token = token
    assert await r.claims().acknowledge(claim)
    await r.claims().acknowledge(claim)
    assert (await r.observer.totals())["succeeded"] == 1, "and no job is settled twice"


async def test_a_job_that_kills_its_worker_goes_to_the_failed_list(r: Resque) -> None:
    await r.queue.enqueue("q", "note", [{}], "killer")
    housekeeping = r.housekeeping(crash_limit=3)
    for crashes in range(3):
        [claim] = (await r.claims().take(await r.slots(lease_seconds=0.02), busy=False)).claims
        assert claim.crashes == crashes
        await until(housekeeping.reap)
    [record] = r.failed()
    assert (record["exception"], record["error"]) == ("WorkerLost", "its worker died while it ran, 3 times")
    assert record["payload"]["args"] == [{"id": "killer"}]
    assert (r.waiting(), r.get("EXISTS", r.keys.crashes)) == ([], 0)


async def test_a_job_that_has_crashed_twice_runs_alone(r: Resque) -> None:
    for name in ("innocent", "suspect", "next"):
        await r.queue.enqueue("q", "note", [{}], name)
    r.get("HSET", r.keys.crashes, "suspect", 2)
    slots, reserve = await r.slots(3), r.claims()
    first = await reserve.take(slots, busy=False)
    assert [claim.job.id for claim in first.claims] == ["innocent"]
    assert first.waits["q"] < 0, "ask again when you are idle"
    assert (await reserve.take(slots[1:], busy=True)).claims == []
    await reserve.acknowledge(first.claims[0])
    second = await reserve.take(slots, busy=False)
    assert [claim.job.id for claim in second.claims] == ["suspect"]


async def test_jobs_that_have_crashed_are_still_run(r: Resque, jobs: Jobs) -> None:
    names = [f"job {number}" for number in range(20)]
    for name in names:
        await r.queue.enqueue("q", "note", [{}], name)
    r.get("HSET", r.keys.crashes, *[word for name in names[3:9] for word in (name, "2")])
    async with r.working(definitions=jobs.definitions(), scaling=resque.Scaling(5, 5)):
        await until(lambda: len(jobs.done) == 20)
    assert r.get("EXISTS", r.keys.crashes) == 0


async def test_a_repeated_claim_returns_the_same_jobs(r: Resque) -> None:
    for number in range(3):
        await r.queue.enqueue("q", "note", [number])
    slots, reserve = await r.slots(2), r.claims()
    lost = await reserve.take(slots, busy=False)
    again = await reserve.take(slots, busy=False)
    assert [(c.token, c.job.args) for c in again.claims] == [(c.token, c.job.args) for c in lost.claims]
    assert [wire.read_job(raw).args for raw in r.waiting()] == [[2]]


async def test_a_unique_job_that_fails_with_its_worker_frees_its_lock(r: Resque) -> None:
    definitions = {"note": Definition(print, unique=lambda job: job["kind"])}
    queue = r.new_queue(**definitions)
    assert await queue.enqueue("q", "note", [{"kind": "a"}])
    await r.claims().take(await r.slots(lease_seconds=0.02), busy=False)
    housekeeping = r.housekeeping(crash_limit=1, definitions=definitions)
    await until(housekeeping.reap)
    assert [record["exception"] for record in r.failed()] == ["WorkerLost"]
    assert await queue.enqueue("q", "note", [{"kind": "a"}]), "the next one of its kind may run"


async def test_a_lock_that_another_job_holds_by_now_stays(r: Resque) -> None:
    lock = r.keys.unique("digest")
    r.get("SET", lock, "another")
    assert await r.scripts("unlock", [lock], "mine") == 0
    assert r.get("GET", lock) == "another"


async def test_a_job_that_reappears_in_the_record_of_an_idle_slot_is_run_again(
    r: Resque, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a crash in which Redis lost its last second, and with it the acknowledgement of the job."""
    monkeypatch.setattr(claiming, "IDLE_ASK_SECONDS", 0.1)
    async with r.working(definitions=jobs.definitions(), scaling=resque.Scaling(1, 1)) as worker:
        await r.queue.enqueue("q", "wait", [1])
        await until(lambda: worker.busy)
        [state] = await r.observer.workers()
        record = r.get("GET", r.keys.worker(state.id))
        jobs.gate.set()
        await until(lambda: r.events("Succeeded") and r.events("Polled")[-1].jobs == 0)
        r.get("SET", r.keys.worker(state.id), record)
        await until(lambda: len(r.events("Succeeded")) == 2)
    assert jobs.done == [(1,), (1,)]
    assert not any(key.startswith("worker") for key in r.all_keys())


@pytest.mark.parametrize("name", ["claim", "acknowledge"])
async def test_a_connection_cut_before_the_answer_loses_and_duplicates_no_job(r: Resque, jobs: Jobs, name: str) -> None:
    """The proxy forwards the script and closes the connection instead of forwarding the answer."""
    async with a_proxy(r.valkey.port) as proxy, resque.open_connections(proxy.url) as connections:
        cut: Proxy = proxy
        async with r.working(definitions=jobs.definitions(), connections=connections) as worker:
            await r.scripts._load()  # otherwise the cut call might be of a script that is not loaded
            cut.at(worker._claims._scripts._scripts[name].sha)
            for number in range(20):
                await r.queue.enqueue("q", "note", [number])
            await until(lambda: len(jobs.done) >= 20 and not worker.busy)
            assert cut.times == 1
    assert sorted(jobs.done) == [(number,) for number in range(20)]
    assert (r.waiting(), r.failed()) == ([], [])


async def test_a_worker_that_another_program_removed_registers_under_a_new_name(r: Resque, jobs: Jobs) -> None:
    async with r.working(definitions=jobs.definitions(), lease_seconds=0.3) as worker:
        [before] = await until(r.observer.workers)
        await r.queue.enqueue("q", "wait", [1])
        await until(lambda: worker.busy)
        r.get("SREM", r.keys.workers, before.id)  # as Node's forceClean does
        await until(lambda: len(r.events("Started")) == 2)
        await r.queue.enqueue("q", "note", [2])
        await until(lambda: jobs.done == [(2,)])
        assert before.id not in {after.id for after in await r.observer.workers()}
        jobs.gate.set()


async def test_a_process_never_uses_a_name_twice(r: Resque, jobs: Jobs) -> None:
    names = set()
    for _ in range(3):
        async with r.working(definitions=jobs.definitions()) as worker:
            names.add(worker._registration.host)
    assert len(names) == 3


async def test_a_key_of_the_wrong_type_affects_no_other_key(r: Resque, jobs: Jobs) -> None:
    r.get("SET", r.keys.queue("broken"), "no list")
    r.get("ZADD", r.keys.schedule, 1, "1", 2, "2")
    r.get("SET", r.keys.delayed(1), "no list")
    r.get("RPUSH", r.keys.delayed(2), '{"class":"note","queue":"q","args":[2]}', "invalid")
    async with r.working(["broken", "q"], definitions=jobs.definitions()):
        await until(lambda: jobs.done == [(2,)])
        await until(lambda: r.failed())
        assert [await r.queue.length(name) for name in ("broken", "q")] == [None, 0]


# A full Redis accepts no jobs, but workers can still run the jobs that it has.


async def test_a_worker_that_starts_while_redis_is_full_runs_all_jobs(own: Resque, jobs: Jobs) -> None:
    await own.queue.enqueue("q", "note", ["held by a dead worker"])
    [_] = (await own.claims().take(await own.slots(lease_seconds=0.05), busy=False)).claims
    await own.queue.enqueue_in(0.1, "q", "note", ["planned"])
    for number in range(20):
        await own.queue.enqueue("q", "note", [number])
    own.get("RPUSH", own.keys.queue("q"), "invalid")
    jobs.errors = [ValueError("retry"), resque.Permanent("never")]
    own.get("CONFIG", "SET", "maxmemory", 1)
    async with own.working(definitions=jobs.definitions(base_seconds=0.001)):
        await until(lambda: len(own.events("Succeeded")) == 21 and len(own.events("Failed")) == 2)
    assert len({str(done) for done in jobs.done}) == 21
    assert [type(event.error).__name__ for event in own.events("Reenqueued")] == ["ValueError"]
    assert sorted(record["exception"] for record in own.failed()) == ["BadJob", "Permanent"]
    assert not any(key in WORKER_KEYS or key.startswith("worker:") for key in own.all_keys()), own.all_keys()


async def test_a_worker_keeps_its_lease_and_its_job_while_redis_is_full(own: Resque, jobs: Jobs) -> None:
    await own.queue.enqueue("q", "wait", [1])
    async with own.working(definitions=jobs.definitions(), lease_seconds=2.0) as worker:
        await until(lambda: worker.busy)
        own.get("CONFIG", "SET", "maxmemory", 1)
        [worker_id, *_] = own.get("ZRANGE", own.keys.leases, 0, -1)
        lease = own.get("ZSCORE", own.keys.leases, worker_id)
        beaten = "there was a heartbeat after the lease of then would have ended"
        await until(lambda: (own.get("ZSCORE", own.keys.leases, worker_id) or 0) > lease + 2000, beaten)
        jobs.gate.set()
        await until(lambda: own.events("Succeeded"))
    assert (jobs.done, len(own.events("Started")), own.events("CleanedWorker")) == ([(1,)], 1, [])


async def test_an_idle_worker_finds_jobs_while_redis_is_full(own: Resque, jobs: Jobs) -> None:
    """The waiting command may need memory, so a full Redis refuses it."""
    async with own.working(definitions=jobs.definitions()):
        await until(lambda: own.events("Polled"))
        await own.queue.enqueue_in(0.1, "q", "note", ["planned"])
        own.get("CONFIG", "SET", "maxmemory", 1)
        await until(lambda: jobs.done)


# A job whose destination key has the wrong type stays at its source.


@pytest.mark.parametrize("blocked", ["failed", "queue", "schedule", "delayed"])
async def test_a_job_whose_destination_has_the_wrong_type_stays_in_its_record(r: Resque, blocked: str) -> None:
    await r.queue.enqueue("q", "note", [1])
    reserve = r.claims()
    [claim] = (await reserve.take(await r.slots(), busy=False)).claims
    now = int(time.time())
    ways: dict[str, tuple[list[str], Callable[[], Awaitable[bool]]]] = {
        "failed": ([r.keys.failed], lambda: reserve.give_up(claim, "ValueError", "no", [])),
        "queue": ([r.keys.queue("q")], lambda: reserve.release(claim)),
        "schedule": ([r.keys.schedule], lambda: reserve.retry(claim, 1000)),
        "delayed": ([r.keys.delayed(now + s) for s in range(1000, 1060)], lambda: reserve.retry(claim, 1000)),
    }
    targets, settle = ways[blocked]
    for key in targets:
        r.get("SET", key, "of another type")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await settle()
    assert orjson.loads(r.get("GET", r.keys.worker(claim.slot.id)))["payload"]["args"] == [1]
    r.get("DEL", *targets)
    assert await settle(), "it moves there when the key is repaired"
    assert len(r.waiting()) + len(r.failed()) + len(await r.queue.delayed()) == 1
    assert r.get("EXISTS", r.keys.worker(claim.slot.id)) == 0


async def test_a_due_job_whose_queue_is_not_a_list_goes_to_the_failed_list(r: Resque) -> None:
    r.get("SET", r.keys.queue("broken"), "no list")
    r.get("RPUSH", r.keys.delayed(1), *(f'{{"class":"note","queue":"broken","args":[{n}]}}' for n in range(3)))
    r.get("RPUSH", r.keys.delayed(2), '{"class":"note","queue":"q","args":[]}')
    r.get("ZADD", r.keys.schedule, 1, 1, 2, 2)
    assert await r.housekeeping().promote() == 4
    assert await r.housekeeping().set_aside() == 3
    assert len(r.waiting()) == 1, "and holds up no other"
    assert {record["error"] for record in r.failed()} == {"the key of the queue broken is not a list"}
    assert [wire.read_job(record["raw"]).args for record in r.failed()] == [[0], [1], [2]]


async def test_an_invalid_job_stays_in_its_queue_if_it_cannot_be_set_aside(r: Resque) -> None:
    for key, queue in ((r.keys.queue("q"), "q"), (r.keys.delayed(1), "delayed")):
        r.get("RPUSH", key, f"invalid in {queue}")
    r.get("ZADD", r.keys.schedule, 1, 1)
    r.get("SET", r.keys.unreadable, "no list")
    assert (await r.claims().take(await r.slots(), busy=False)).waits["q"] > 0, "to be asked again later"
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await r.housekeeping().promote()
    assert (r.waiting(), r.get("LRANGE", r.keys.delayed(1), 0, -1)) == (["invalid in q"], ["invalid in delayed"])
    r.get("DEL", r.keys.unreadable)
    r.get("SET", r.keys.failed, "no list")
    assert await r.housekeeping().promote() == 1
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await r.housekeeping().set_aside()
    assert r.get("LRANGE", r.keys.unreadable, 0, -1) == ["", "invalid in delayed"]


async def test_counters_of_the_wrong_type_lose_no_job(r: Resque, jobs: Jobs) -> None:
    for key in (r.keys.attempts, r.keys.crashes):
        r.get("SET", key, "no hash")
    await r.queue.enqueue("q", "note", [1])
    [claim] = (await r.claims().take(await r.slots(), busy=False)).claims
    assert (claim.failed, claim.crashes) == (0, 0)
    assert await r.claims().give_up(claim, "ValueError", "no", [])
    assert len(r.failed()) == 1


async def test_a_dead_worker_s_job_whose_queue_is_not_a_list_delays_no_other_job(r: Resque) -> None:
    for queue in ("broken", "q"):
        await r.queue.enqueue(queue, "note", [queue])
        await r.claims(queue).take(await r.slots(lease_seconds=0.02, queues=[queue]), busy=False)
    r.get("SET", r.keys.queue("broken"), "no list")
    housekeeping, reaped = r.housekeeping(), [0]

    async def both_are_reaped() -> bool:  # their leases end at different times
        reaped.append(await housekeeping.reap())
        return sum(reaped) == 2

    await until(both_are_reaped)
    assert len(r.waiting()) == 1
    [record] = r.failed()
    assert (record["payload"]["args"], record["exception"]) == (["broken"], "WorkerLost")


# After an outage of Redis longer than the lease, live workers must not be declared dead.


async def test_after_an_outage_of_redis_live_workers_renew_before_dead_ones_are_reaped(r: Resque) -> None:
    here = registration.Registration(r.scripts, r.connections.thread, r.keys, ["q"], 5.0, lambda: None)
    living, dead = await here.add(1), await r.slots()
    for number in range(2):
        await r.queue.enqueue("q", "note", [number])
    [claim] = (await r.claims().take(living, busy=False)).claims
    assert (await r.claims().take(dead, busy=False)).claims
    housekeeping = r.housekeeping(lease_seconds=1.0)
    assert await housekeeping.reap() == 0
    looked = int(r.get("HGET", r.keys.reaping, "looked"))
    r.get("HSET", r.keys.reaping, "looked", looked - 10_000)  # ten seconds without a call: all leases have ended
    r.get("ZADD", r.keys.leases, looked - 8000, living[0].id, looked - 8000, dead[0].id)
    assert await housekeeping.reap() == 0
    looked, first = r.get("HMGET", r.keys.reaping, "looked", "from")
    assert int(first) - int(looked) == 1000 // 3 + 250, "a third of the lease, and a try more"
    here._send_beats()
    await until(housekeeping.reap, "a moment later")
    assert [event.outcome for event in r.events("CleanedWorker")] == ["its job is back in q"]
    assert (len(r.waiting()), r.get("HLEN", r.keys.crashes)) == (1, 1)
    assert await r.claims().acknowledge(claim), "it is still ours"


async def test_without_an_outage_dead_workers_are_reaped_at_once(r: Resque) -> None:
    await r.slots()
    housekeeping = r.housekeeping(lease_seconds=0.1)
    assert await housekeeping.reap() == 0
    looked = int(r.get("HGET", r.keys.reaping, "looked"))
    r.get("HSET", r.keys.reaping, "looked", looked - 200)  # a delay by a busy event loop is not an outage
    r.get("ZADD", r.keys.leases, 1, r.get("ZRANGE", r.keys.leases, 0, 0)[0])
    assert await housekeeping.reap() == 1


async def test_an_outage_of_redis_longer_than_the_lease_counts_as_no_crash(own: Resque, jobs: Jobs) -> None:
    for number in range(6):
        await own.queue.enqueue("q", "wait", [number])
    options: dict[str, Any] = {"definitions": jobs.definitions(), "lease_seconds": 1.9, "scaling": resque.Scaling(3, 3)}
    async with own.working(**options) as one, own.working(**options) as other:
        await until(lambda: one.busy == other.busy == 3)
        await until(lambda: own.get("HGET", own.keys.reaping, "looked"))
        os.kill(own.valkey.pid, signal.SIGSTOP)
        try:  # each of them has waited two seconds for an answer
            await until(lambda: len([e for e in own.events("Erred") if e.what == "housekeeping"]) >= 2)
        finally:
            os.kill(own.valkey.pid, signal.SIGCONT)

        def is_over() -> bool:
            looked, first = own.get("HMGET", own.keys.reaping, "looked", "from")
            return first is not None and int(looked) > int(first)

        await until(is_over, "dead workers are reaped again")
        jobs.gate.set()
        await until(lambda: len(own.events("Succeeded")) == 6)
    assert (len(jobs.done), own.events("CleanedWorker"), len(own.events("Started"))) == (6, [], 2)
    assert own.get("EXISTS", own.keys.crashes) == 0


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
