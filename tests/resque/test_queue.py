"""The producer's side of the queue: enqueue once, read, pause and cancel."""

import asyncio
import time
from typing import Any

import pytest
from redis.exceptions import ConnectionError, ResponseError

import resque
from asynckit.ids import made_at, new_id
from common.processes.chapter import chapter_module
from resque import removal
from resque.queues import Queues
from tests.support.resque import Definition, Resque


async def test_a_job_waits_in_its_queue_as_resque_writes_it(r: Resque) -> None:
    assert await r.queue.enqueue("q", "greet", ["Grüße", 1, None])
    assert r.waiting() == ['{"class":"greet","queue":"q","args":["Grüße",1,null]}']
    assert r.get("SMEMBERS", r.keys.queues) == {"q"}
    assert (await r.queue.names(), await r.queue.length("q")) == (["q"], 1)


async def test_jobs_wait_in_the_order_in_which_they_were_enqueued(r: Resque) -> None:
    await asyncio.gather(*[r.queue.enqueue("q", "count", [number]) for number in range(2500)])
    assert [job.args[0] for job in await r.queue.peek("q", 0, 2500)] == list(range(2500))
    assert [job.args[0] for job in await r.queue.peek("q", 2000, 2)] == [2000, 2001]


async def test_a_job_gets_an_id_with_a_time_in_its_first_argument(r: Resque) -> None:
    await r.queue.enqueue("q", "greet", [{"name": "Alice"}, 2])
    [job] = await r.queue.peek("q")
    assert job.args == [{"name": "Alice", "id": job.id}, 2]
    assert abs((made_at(job.id) or 0) - time.time()) < 60


async def test_a_repeated_id_is_enqueued_once(r: Resque) -> None:
    results = await asyncio.gather(*[r.queue.enqueue("q", "greet", [{}], "one") for _ in range(20)])
    assert sorted(results) == [False] * 19 + [True]
    assert not await r.queue.enqueue("another", "greet", [{"id": "one"}])
    assert not await r.queue.enqueue_in(60, "q", "greet", [{"id": "one"}])
    assert len(r.waiting()) == 1


async def test_enqueueing_again_after_a_lost_answer_is_safe(r: Resque, monkeypatch: pytest.MonkeyPatch) -> None:
    send, lose = r.scripts._send, [True]

    async def lossy(calls: object) -> object:
        answer = await send(calls)
        if lose.pop():
            raise ConnectionError("the answer got lost")
        return answer

    monkeypatch.setattr(r.scripts, "_send", lossy)
    with pytest.raises(ConnectionError):
        await r.queue.enqueue("q", "greet", [{}], "one")
    lose.append(False)
    assert not await r.queue.enqueue("q", "greet", [{}], "one"), "it was there"
    assert len(r.waiting()) == 1


async def test_ids_are_remembered_for_at_least_an_hour_and_then_forgotten(r: Resque) -> None:
    await r.queue.enqueue("q", "greet", [{}], "early")
    hour = 3_600_000
    assert hour < r.get("PTTL", r.keys.seen) <= 2 * hour
    r.get("PEXPIRE", r.keys.seen, hour - 1)  # an hour and a millisecond later
    assert not await r.queue.enqueue("q", "greet", [{}], "early")
    assert await r.queue.enqueue("q", "greet", [{}], "late")
    assert 0 < r.get("PTTL", r.keys.seen_before) <= hour, "the older set expires"
    assert not await r.queue.enqueue("q", "greet", [{}], "early"), "and is still asked"
    r.get("DEL", r.keys.seen_before)
    assert await r.queue.enqueue("q", "greet", [{}], "early")


async def test_jobs_without_an_object_have_no_id_and_are_not_deduplicated(r: Resque) -> None:
    for _ in range(2):
        assert await r.queue.enqueue("q", "greet", ["Alice"])
    assert len(r.waiting()) == 2
    with pytest.raises(resque.BadJob):
        await r.queue.enqueue("q", "greet", ["Alice"], "an id")


@pytest.mark.parametrize(
    "args", [[float("nan")], [float("inf")], [2**53 + 1], ["\ud800"], [{1: 2}], [{1, 2}], [b"x"]], ids=repr
)
async def test_a_job_that_other_languages_would_read_differently_is_refused(r: Resque, args: list[object]) -> None:
    with pytest.raises(resque.BadJob):
        await r.queue.enqueue("q", "greet", args)
    assert r.all_keys() == []


async def test_a_delayed_job_is_scheduled_for_a_whole_second(r: Resque) -> None:
    moment = time.time() + 1000.2
    assert await r.queue.enqueue_at(moment, "q", "greet", [])
    second = int(moment) + 1
    raw = '{"class":"greet","queue":"q","args":[]}'
    assert r.get("ZRANGE", r.keys.schedule, 0, -1, "WITHSCORES") == [str(second), str(second)]
    assert r.get("LRANGE", r.keys.delayed(second), 0, -1) == [raw]
    assert r.get("SMEMBERS", r.keys.timestamps(raw)) == {f"delayed:{second}"}
    [(due, job)] = await r.queue.delayed()
    assert (due, job.name, r.waiting()) == (second, "greet", [])


async def test_a_job_with_a_time_in_the_past_waits_at_once(r: Resque) -> None:
    assert await r.queue.enqueue_at(time.time() - 5, "q", "greet", [])
    assert await r.queue.enqueue_in(0, "q", "greet", [])
    assert len(r.waiting()) == 2


async def test_a_waiting_job_can_be_cancelled_and_enqueued_again(r: Resque) -> None:
    for job_id in ("one", "two", "three"):
        await r.queue.enqueue("q", "greet", [{}], job_id)
    assert await r.queue.cancel("two")
    assert [job.id for job in await r.queue.peek("q")] == ["one", "three"]
    assert not await r.queue.cancel("two")
    assert await r.queue.enqueue("q", "greet", [{}], "two")


async def test_a_delayed_job_can_be_cancelled(r: Resque) -> None:
    await r.queue.enqueue_in(1000, "q", "greet", [{}], "one")
    assert await r.queue.cancel("one")
    assert await r.queue.delayed() == []
    assert not any(key.startswith(("timestamps:", "delayed")) for key in r.all_keys()), "nor an empty second"


async def test_a_job_that_is_promoted_during_the_search_is_cancelled_in_its_queue(
    r: Resque, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job becomes due after its second was read and before it is removed."""
    r.get("RPUSH", r.keys.delayed(1), '{"class":"greet","queue":"q","args":[{"id":"one"}]}')
    r.get("ZADD", r.keys.schedule, 1, 1)
    take = removal.take_delayed

    async def too_late(*arguments: Any) -> int:
        assert await r.housekeeping().promote() == 1
        return await take(*arguments)

    monkeypatch.setattr(removal, "take_delayed", too_late)
    assert await r.queue.cancel("one")
    assert (r.waiting(), await r.queue.delayed()) == ([], [])


async def test_no_delayed_job_is_skipped_while_others_become_due(r: Resque, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "PAGE", 2)
    for second in (*range(1, 4), *range(4_000_000_001, 4_000_000_004)):
        r.get("RPUSH", r.keys.delayed(second), f'{{"class":"greet","queue":"q","args":[{second}]}}')
        r.get("ZADD", r.keys.schedule, second, second)
    found: list[int] = []
    async for second, _ in r.queue._removal._delayed():
        if not found:
            assert await r.housekeeping().promote() == 3
        found.append(second)
    assert found[-3:] == [4_000_000_001, 4_000_000_002, 4_000_000_003]


async def test_a_running_job_cannot_be_cancelled(r: Resque) -> None:
    await r.queue.enqueue("q", "greet", [{}], "one")
    answer = await r.claims().take(await r.slots(), busy=False)
    assert [claim.job.id for claim in answer.claims] == ["one"]
    assert not await r.queue.cancel("one")


async def test_a_queue_can_be_removed_with_all_its_jobs(r: Resque) -> None:
    for number in range(3):
        await r.queue.enqueue("q", "greet", [number])
    assert await r.queue.remove("q") == 3
    assert (await r.queue.names(), r.waiting()) == ([], [])


async def test_jobs_of_a_removed_queue_may_be_enqueued_again(r: Resque, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "PAGE", 2)
    queue = r.new_queue(greet=Definition(print, unique=lambda person: person["name"]))
    r.get("RPUSH", r.keys.queue("q"), "invalid", '{"class":"greet","args":[1]}')  # jobs without a definition
    for name in ("Alice", "Bob", "Carol"):
        assert await queue.enqueue("q", "greet", [{"name": name}], name)
        r.get("HSET", r.keys.attempts, name, 1)
        r.get("HSET", r.keys.crashes, name, 1)
    assert await queue.remove("q") == 5
    assert not any(key.startswith("py:") for key in r.all_keys()), r.all_keys()
    assert await queue.enqueue("q", "greet", [{"name": "Alice"}], "Alice")
    assert await queue.remove("nowhere") == 0


async def test_an_invalid_job_is_read_as_bytes(r: Resque) -> None:
    r.get("RPUSH", r.keys.queue("q"), "invalid", '{"class":"greet"}', "[]", b"\xff")
    items = await Queues(r.queue.client, r.keys).jobs("q")
    assert [item.text for item in items] == [b"invalid", b'{"class":"greet"}', b"[]", b"\xff"]
    assert (items[1].job("q").name, items[1].job("q").args) == ("greet", [])
    for number in (0, 2, 3):
        with pytest.raises(resque.BadJob):
            items[number].job("q")


async def test_only_one_unique_job_waits_at_a_time(r: Resque) -> None:
    queue = r.new_queue(greet=Definition(print, unique=lambda person: person["name"]))
    assert await queue.enqueue("q", "greet", [{"name": "Alice"}])
    assert not await queue.enqueue("q", "greet", [{"name": "Alice"}])
    assert await queue.enqueue("q", "greet", [{"name": "Bob"}])
    [lock, _] = [key for key in r.all_keys() if key.startswith("py:unique:")]
    assert 0 < r.get("PTTL", r.keys.key(lock)) <= 3_600_000, "the lock expires if an operator deletes the job"
    [job, _] = await queue.peek("q")
    assert await queue.cancel(job.id)
    assert await queue.enqueue("q", "greet", [{"name": "Alice"}]), "the cancelled one holds the place no longer"


async def test_repeating_a_unique_job_does_not_lock_it_out(r: Resque) -> None:
    """After a lost answer the call is repeated, and the lock already belongs to the same job."""
    queue = r.new_queue(greet=Definition(print, unique=lambda person: 1))
    assert await queue.enqueue("q", "greet", [{}], "one")
    assert not await queue.enqueue("q", "greet", [{}], "one")
    assert len(r.waiting()) == 1


async def test_a_known_id_takes_no_lock(r: Resque) -> None:
    queue = r.new_queue(greet=Definition(print, unique=lambda person: 1))
    await queue.enqueue("q", "greet", [{}], "one")
    [lock] = [key for key in r.all_keys() if key.startswith("py:unique:")]
    r.get("DEL", r.keys.key(lock))  # the job is done
    assert not await queue.enqueue("q", "greet", [{}], "one")
    assert await queue.enqueue("q", "greet", [{}], "two")


async def test_a_plug_in_may_refuse_a_job_and_is_called_after_enqueueing(r: Resque) -> None:
    enqueued = []

    class OnlyAlice(resque.Plugin):
        async def before_enqueue(self, job: resque.Job) -> bool:
            return bool(job.args == ["Alice"])

        async def after_enqueue(self, job: resque.Job) -> None:
            enqueued.append(job.args)

    queue = r.new_queue(greet=Definition(print, plugins=[OnlyAlice()]))
    assert await queue.enqueue("q", "greet", ["Alice"])
    assert not await queue.enqueue("q", "greet", ["Bob"])
    assert (len(r.waiting()), enqueued) == (1, [["Alice"]])


async def test_the_age_of_the_oldest_job_is_read_from_its_id(r: Resque) -> None:
    early = f"{int((time.time() - 100) * 1000):012x}{new_id('x')[13:33]}"
    await r.queue.enqueue("q", "greet", [{}], early)
    await r.queue.enqueue("q", "greet", [{}])
    await r.queue.enqueue("no-ids", "greet", ["no id"])
    [unknown, known] = await Queues(r.queue.client, r.keys).states(await r.queue.names())
    assert known.oldest_seconds
    assert 100 <= known.oldest_seconds < 160
    assert (unknown.length, unknown.oldest_seconds) == (1, None)


async def test_enqueueing_into_a_key_that_is_not_a_list_fails_and_remembers_no_id(r: Resque) -> None:
    """Enqueueing again works when the key is repaired, and other queues are not affected."""
    r.get("SET", r.keys.queue("broken"), "no list")
    results: list[object] = await asyncio.gather(
        r.queue.enqueue("broken", "greet", [{}], "one"),
        r.queue.enqueue("q", "greet", [{}], "two"),
        return_exceptions=True,
    )
    assert isinstance(results[0], ResponseError)
    assert results[1] is True
    r.get("DEL", r.keys.queue("broken"))
    assert await r.queue.enqueue("broken", "greet", [{}], "one")


async def test_a_paused_queue_reports_the_reason(r: Resque) -> None:
    await r.queue.pause("q", "the login failed", 60)
    assert await r.queue.paused("q") == "the login failed"
    await r.queue.resume("q")
    assert await r.queue.paused("q") is None
    r.get("SET", r.keys.pause_all, "True")
    assert await r.queue.paused("q") == "pause-all-workers is set"


async def test_the_failed_counter_never_decreases(r: Resque) -> None:
    """The list gets shorter when jobs are requeued, but a counter for monitoring must not decrease."""
    jobs = chapter_module("5_remote_queue.jobs").Jobs(r.connections.commands)
    jobs.queue, jobs._observer = r.queue, r.observer
    await r.queue.enqueue("q", "note", [1])
    [claim] = (await r.claims().take(await r.slots(), busy=False)).claims
    await r.claims().give_up(claim, "ValueError", "no", [])
    stats = await jobs.stats()
    assert (stats["failed"], stats["failed_list"]) == (1, 1)
    r.get("DEL", r.keys.failed)
    stats = await jobs.stats()
    assert (stats["failed"], stats["failed_list"]) == (1, 0)
