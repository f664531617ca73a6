"""Counting the attempts of jobs of all programs."""

import json
from typing import Any, cast

import pytest

import resque
from resque import keys as keys_module
from resque import registration, scripts, wire
from tests.support.programs import until
from tests.support.resque import Definition, Resque
from tests.support.servers import Valkey

# Counting the attempts of jobs of all programs.


@pytest.mark.parametrize(
    "raw",
    [
        '{"class":"fail","args":[]}',
        '{"class":"fail","args":{"id":"x"}}',
        '{"class":"fail","args":[{"id":"x"}]}',
        '{"class":"fail","args":[12345678901234567,1.0]}',
        '{"class":"fail","queue":"other","args":[]}',
        '{"class":"fail","queue":"q","args":[1e999]}',
    ],
)
async def test_a_job_in_any_format_fails_after_its_attempts(r: Resque, raw: str) -> None:
    calls = 0

    async def fail(*_: object) -> None:
        nonlocal calls
        calls += 1
        raise ValueError

    r.get("RPUSH", r.keys.queue("q"), raw)
    async with r.working(definitions={"fail": Definition(fail, attempts=2, base_seconds=0.01)}):
        await until(lambda: r.events("Failed"), "it is in the failed list")
    assert calls == (0 if "1e999" in raw else 2)
    assert r.get("EXISTS", r.keys.attempts, r.keys.schedule) == 0
    assert len(r.failed()) == 1


async def test_an_empty_id_counts_as_missing(r: Resque) -> None:
    calls: list[Any] = []

    async def fail(*args: Any) -> None:
        calls.append(args[0]["n"])
        raise ValueError

    r.get("RPUSH", r.keys.queue("q"), *(f'{{"class":"fail","args":[{{"id":"","n":{n}}}]}}' for n in (1, 2)))
    async with r.working(definitions={"fail": Definition(fail, attempts=2, base_seconds=0.01)}):
        await until(lambda: len(r.events("Failed")) == 2, "both are in the failed list")
    assert sorted(calls) == [1, 1, 2, 2], "each has attempts of its own"


async def test_attempts_are_still_counted_after_ruby_s_scheduler_has_rewritten_the_job(r: Resque) -> None:
    """It is the leader and rewrites due jobs without their queue and other members."""
    calls = 0

    async def fail(*_: object) -> None:
        nonlocal calls
        calls += 1
        raise ValueError

    def has_failed() -> bool:
        for second in r.get("ZRANGE", r.keys.schedule, 0, -1):
            while raw := r.get("LPOP", r.keys.delayed(int(second))):
                members = json.loads(raw)
                again = json.dumps({"class": members["class"], "args": members["args"]}, separators=(",", ":"))
                r.get("RPUSH", r.keys.queue(members["queue"]), again)
            r.get("ZREM", r.keys.schedule, second)
        return bool(r.events("Failed"))

    r.get("SET", r.keys.ruby_lock, "ruby:1")
    await r.queue.enqueue("q", "fail", [[], 1])
    async with r.working(definitions={"fail": Definition(fail, attempts=3, base_seconds=0.01)}):
        await until(has_failed, "it is in the failed list")
    assert calls == 3
    assert r.get("EXISTS", r.keys.attempts) == 0


@pytest.mark.parametrize("args", ['[{"id":"x"}]', '{"id":"x"}'])
async def test_attempts_are_counted_under_the_id_of_a_job(r: Resque, args: str) -> None:
    r.get("RPUSH", r.keys.queue("q"), f'{{"class":"fail","args":{args}}}')
    [claim] = (await r.claims().take(await r.slots(), busy=False)).claims
    assert claim.job.id == "x"
    assert await r.claims().retry(claim, 100)
    assert r.get("HGETALL", r.keys.attempts) == {"x": "1"}


def test_a_lost_lease_that_is_reported_too_late_is_ignored(valkey: Valkey) -> None:
    """The heartbeat's thread calls the event loop, where the worker may already have registered again."""
    reported: list[bool] = []
    keys = keys_module.Keys("r")
    here = registration.Registration(cast(Any, None), valkey.client, keys, ["q"], 5.0, lambda: reported.append(True))
    here._report_lost()
    assert reported == []
    here._lost = True
    here._report_lost()
    assert reported == [True]


KEYED = [
    '{"class":"c","queue":"q","args":[130775545883395170]}',
    '{"class":"c","queue":"q","args":[130775545883395171]}',
    '{"class":"c","args":[1.0, {"a": [1, "]}\\\\\\""]}, "\\u00e9"] }',
    '{"args": {"x": 1} , "class" : "c"}',
    '{"class":"c"}',
    '{"class":"c","args":null}',
    '{"class":"c","args":[1],"args":[2]}',
    '{"class":"c","args":[{"id":"seven"}]}',
    '{"class":"c","args":[{"id":7}]}',
    '{"class":"c","args":[[],{},"",true,-1e5]}',
]


async def test_lua_and_python_compute_the_same_key_of_a_job(r: Resque) -> None:
    script = scripts.source("look").split(b"local place, last")[0] + b"return job_key(ARGV[1], ARGV[2])"
    keys = [r.get("EVAL", script, 1, "k", "q", raw) for raw in KEYED]
    assert keys == [wire.read_job(raw, "q").key for raw in KEYED]
    assert len(set(keys)) == len(KEYED)


async def test_similar_jobs_have_separate_attempts(r: Resque) -> None:
    raws = [f'{{"class":"flaky","queue":"q","args":[{130775545883395170 + n}]}}' for n in range(5)]
    runs: list[int] = []

    async def flaky(number: int) -> None:
        runs.append(number)
        raise ValueError("no")

    r.get("RPUSH", r.keys.queue("q"), *raws)
    async with r.working(definitions={"flaky": resque.Definition(flaky, attempts=2, base_seconds=0.001)}):
        await until(lambda: len(r.failed()) == 5)
    assert sorted(runs) == sorted(2 * [130775545883395170 + n for n in range(5)])
    assert r.get("EXISTS", r.keys.attempts) == 0
