"""The worker's side of the queue: how jobs end, and how the jobs of a dead worker are recovered."""

import asyncio
import time
from functools import partial

import resque
from resque import wire
from tests.support.programs import until
from tests.support.resque import Definition, Jobs, Resque

# How jobs end.


async def test_a_finished_job_leaves_no_keys(r: Resque, jobs: Jobs) -> None:
    await r.queue.enqueue("q", "note", [{"name": "Alice"}, 2], "one")
    async with r.working(definitions=jobs.definitions()):
        await until(lambda: r.events("Succeeded"))
        assert jobs.done == [({"name": "Alice", "id": "one"}, 2)]
    assert r.worker_keys() == []
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
