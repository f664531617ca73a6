"""The exact bytes in Redis: what Ruby's Resque, resque-scheduler and node-resque need, and what they may write."""

import json
import re
import socket
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.exceptions import ConnectionError

import resque
from resque import claims, dates, registration, scripts, wire
from resque import keys as keys_module
from resque.delayed import DelayedJobs
from tests.support.node_peer import NODE, rewrite
from tests.support.programs import Valkey, until
from tests.support.resque import Definition, Resque, a_resque

NOW = 1795246773.9  # 2026-11-21 07:39:33 UTC
NASTY = 'a "quote", a back\\slash, a /slash/, </script>, \u2028, \x00\x1f\x7f, 😀 and é'
RAW = '{"class":"note","queue":"q","args":[{"to":"x"},1]}'

needs_node = pytest.mark.skipif(NODE is None, reason="there is no node")


@pytest.fixture
async def r(valkey: Valkey) -> AsyncIterator[Resque]:
    async with a_resque(valkey) as r:
        yield r


# JSON as JavaScript writes it.

NUMBERS = [
    (0.0, "0"), (-0.0, "0"), (1.0, "1"), (-1.5, "-1.5"), (0.1, "0.1"), (100.0, "100"), (1e20, "100000000000000000000"),
    (123456789012345680000.0, "123456789012345680000"), (1e21, "1e+21"), (1.5e21, "1.5e+21"), (1e-6, "0.000001"),
    (1.5e-6, "0.0000015"), (1e-7, "1e-7"), (1.25e-7, "1.25e-7"), (1e300, "1e+300"), (5e-324, "5e-324"),
    (1.7976931348623157e308, "1.7976931348623157e+308"), (2.0**53, "9007199254740992"), (1e16, "10000000000000000"),
    (0.1 + 0.2, "0.30000000000000004"), (1 / 3, "0.3333333333333333"), (12345.678, "12345.678"),
    (123456.7e-10, "0.00001234567"), (63928081899083912.0, "63928081899083910"),
    (2**53, "9007199254740992"), (-(2**53), "-9007199254740992"), (7, "7"),
]  # fmt: skip


@pytest.mark.parametrize(("number", "text"), NUMBERS)
def test_numbers_are_written_as_javascript_writes_them(number: float, text: str) -> None:
    assert wire.encode(number) == text


@needs_node
def test_javascript_writes_numbers_in_the_same_way() -> None:
    assert rewrite([repr(number) for number, _ in NUMBERS]) == [text for _, text in NUMBERS]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.integers(0, 2**33).map(str), inner, max_size=5)
    ),
    max_leaves=10,
)


@needs_node
@settings(max_examples=5)
@given(st.lists(JSON, min_size=10, max_size=20))
def test_javascript_parses_and_writes_our_json_unchanged(values: list[Any]) -> None:
    """Node deletes by value, so the text must be identical."""
    texts = [wire.encode(value) for value in values]
    assert rewrite(texts) == texts


@settings(max_examples=50)
@given(JSON)
def test_our_json_preserves_the_value(value: Any) -> None:
    assert json.loads(wire.encode(value), parse_int=float) == value


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 2**53 + 1, -(2**53) - 1, "\ud800", {"\udfff": 1}, {1: 2}, {1}, b"x", object()]
)
def test_a_value_that_other_languages_would_read_differently_is_refused(value: object) -> None:
    with pytest.raises(wire.BadJob):
        wire.encode([value])


def test_infinite_nesting_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(wire.BadJob):
        wire.encode(endless)


def test_keys_that_look_like_indexes_come_first() -> None:
    value = {"b": 1, "10": 2, "a": 3, "2": 4, "01": 5, "-1": 6, "4294967294": 7, "4294967295": 8}
    assert wire.encode(value) == '{"2":4,"10":2,"4294967294":7,"b":1,"a":3,"01":5,"-1":6,"4294967295":8}'


async def test_a_job_that_is_too_large_is_refused_and_one_of_the_largest_size_is_run(r: Resque) -> None:
    empty = len(wire.make_job("q", "note", [""]).raw)
    largest = "é" * ((wire.MAX_JOB - empty) // 2) + "x" * ((wire.MAX_JOB - empty) % 2)
    with pytest.raises(wire.BadJob, match="larger than"):
        await r.queue.enqueue("q", "note", [largest + "x"])
    assert r.all_keys() == []
    assert await r.queue.enqueue("q", "note", [largest])
    [claim] = (await r.claims().take(await r.slots(), busy=False)).claims
    assert claim.job.args == [largest]


# Dates in the formats of each program.


def test_dates_are_written_as_ruby_reads_them_and_in_whole_seconds() -> None:
    assert wire.heartbeat_at(NOW) == "2026-11-21T07:39:33+00:00"  # with any other format no Ruby worker could start
    assert wire.started_at(NOW) == "2026-11-21 07:39:33 +0000"
    assert wire.failed_at(NOW) == "2026/11/21 07:39:33 UTC"
    assert wire.working_since(NOW) == '"run_at":"2026-11-21T07:39:33Z"'
    assert wire.ping("h:1+1", ["a", "b"], NOW) == '{"time":1795246773,"name":"h:1+1","queues":"a,b"}'


@pytest.mark.parametrize(
    "date",
    [
        "2026-11-21T07:39:33Z", "2026-11-21T07:39:33+00:00", "2026-11-21T08:39:33.000+01:00",  # Ruby: run_at, heartbeat
        "2026-11-21 07:39:33 +0000", "2026-11-21 08:39:33 +0100",  # Ruby: started, last enqueued
        "2026/11/21 07:39:33 UTC", "2026/11/21 07:39:33 GMT",  # Ruby: failed_at, retried_at
        "Sat Nov 21 2026 07:39:33 GMT+0000 (Coordinated Universal Time)",  # Node: run_at, failed_at
        "Sat Nov 21 2026 08:39:33 GMT+0100 (CET)", "Sat Nov 21 2026 07:39:33 GMT+0000",
        "Sat, 21 Nov 2026 07:39:33 GMT", "2026-11-21T07:39:33", " 2026-11-21 07:39:33 +0000\n",
        "1795246773", b"1795246773", 1795246773, 1795246773.0,  # Node: started, the time in a ping
    ],
)  # fmt: skip
def test_dates_of_all_programs_are_read(date: object) -> None:
    assert dates.moment_of(date) == 1795246773


@pytest.mark.parametrize("date", [None, True, "", "x", [], {}, "2026-13-45", "99999999999999999", "\x00", b"\xff"])
def test_an_invalid_date_is_none(date: object) -> None:
    assert dates.moment_of(date) is None


@settings(max_examples=50)
@given(st.text() | st.binary() | JSON)
def test_no_date_makes_the_parser_raise(date: object) -> None:
    moment = dates.moment_of(date)
    assert moment is None or isinstance(moment, float)


def test_a_date_with_an_unknown_zone_is_none() -> None:
    """Ruby writes the name of the machine's zone. Such names are ambiguous, so such a date is not read."""
    assert dates.moment_of("2026/11/21 08:39:33 CET") is None


# Failure records.


def a_failure(job: Any, **members: Any) -> str:
    given: dict[str, Any] = {
        "queue": "q",
        "worker": "h:1+1:q",
        "exception": "ValueError",
        "error": "no",
        "backtrace": [],
        "now": NOW,
    }
    record: str = wire.failure(job, **(given | {"raw": "raw"} | members))
    return record


def test_a_failure_has_ruby_s_members_in_ruby_s_order_and_the_exact_job() -> None:
    raw = '{"args":[12345678901234567,1.0,{}],"class":"note"}'
    assert a_failure(wire.read_job(raw, "q"), backtrace=["a", "b"]) == (
        f'{{"failed_at":"2026/11/21 07:39:33 UTC","payload":{raw},"exception":"ValueError","error":"no",'
        '"backtrace":["a","b"],"worker":"h:1+1:q","queue":"q"}'
    )


def test_a_failure_without_a_job_keeps_the_text_as_a_string() -> None:
    record = json.loads(a_failure(None, raw="{ \ud800"))
    assert list(record) == ["failed_at", "payload", "exception", "error", "backtrace", "worker", "queue", "raw"]
    assert (record["raw"], record["backtrace"]) == ("{ ?", [])
    assert record["payload"] == {"class": "Unreadable", "queue": "q", "args": []}, "Ruby's retry all reads each payload"


def test_a_lone_surrogate_in_an_error_is_not_written_to_redis() -> None:
    record = a_failure(wire.read_job(RAW), error="\ud800", backtrace=["\udfff"])
    assert (json.loads(record)["error"], json.loads(record)["backtrace"]) == ("?", ["?"])


@needs_node
@settings(max_examples=5)
@given(st.lists(st.text(), min_size=20, max_size=30))
def test_javascript_parses_and_writes_a_failure_unchanged(texts: list[str]) -> None:
    records = [
        a_failure(wire.make_job("q", "note", [text]), error=text, backtrace=[text], exception=text or "x")
        for text in [*texts, NASTY]
    ]
    assert rewrite(records) == records


# Jobs.


@pytest.mark.parametrize(
    ("raw", "args"),
    [
        ('{"class":"note","args":[1]}', [1]),  # Ruby
        ('{"class":"note","args":[1],"queue":"other"}', [1]),  # Ruby, delayed
        ('{"class":"note","args":[1],"id":"x","prefix":null}', [1]),  # PHP
        ('{"class":"note","args":null}', []),
        ('{"class":"note"}', []),
        ('{"class":"note","args":{"a":1}}', [{"a": 1}]),
        ('{"class":"note","args":{}}', []),  # Node's script turns [] into {}
        ('{"class":"note","args":7}', [7]),
        (' {"class":"no","class":"note","args":[]}\n', []),
        (b'{"class":"note","queue":null,"args":["\\u00e9"]}', ["é"]),
    ],
)
def test_jobs_of_other_programs_are_read(raw: str | bytes, args: list[Any]) -> None:
    job = wire.read_job(raw, "q")
    assert (job.name, job.queue, job.args) == ("note", "q", args)
    assert job.raw.encode() == raw if isinstance(raw, bytes) else job.raw == raw


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"x", b"[]", b"null", b"7", b'"note"', b"{}", b'{"class":null}', b'{"class":""}', b'{"class":7,"args":[]}',
        b'{"class":["note"]}', b'{"class":"note"', b'{"class":"note"}}', b'{"class":"note","args":[NaN]}', b"\xff\xfe",
        b'{"class":"\xff"}', b'{"class":"\\ud800"}', b"\x80\x04\x95", b"O:8:\"stdClass\":0:{}", b"[" * 100_000,
        b'{"class":"note","args":' + b"[" * 2000 + b"]" * 2000 + b"}",
    ],
)  # fmt: skip
def test_an_invalid_text_is_not_a_job(raw: bytes) -> None:
    with pytest.raises(wire.BadJob):
        wire.read_job(raw, "q")


@given(
    st.binary()
    | JSON.map(orjson.dumps)
    | st.dictionaries(st.sampled_from(["class", "args", "queue"]), JSON).map(orjson.dumps)
)
def test_reading_any_bytes_returns_a_job_or_raises_bad_job(raw: bytes) -> None:
    try:
        job = wire.read_job(raw, "q")
    except wire.BadJob:
        return
    assert job.name
    assert isinstance(job.args, list)
    assert job.raw.encode() == raw
    assert job.id is None or isinstance(job.id, str)


@pytest.mark.parametrize(
    ("raw", "then"),
    [
        (RAW, RAW),
        ('{"class":"note","args":[1.0,{}]}', '{"class":"note","args":[1.0,{}],"queue":"q"}'),
        ('{"class":"note","queue":null} ', '{"class":"note","queue":null,"queue":"q"}'),
        ('{"class":"note","queue":"other"}', '{"class":"note","queue":"other","queue":"q"}'),
    ],
)
def test_a_delayed_job_names_its_queue(raw: str, then: str) -> None:
    job = wire.with_queue(wire.read_job(raw, "q"))
    assert job.raw == then
    assert json.loads(then)["queue"] == "q"


# Our keys in Redis.


async def test_a_delayed_job_is_in_the_keys_that_all_programs_read(r: Resque) -> None:
    second = int(time.time()) + 1000
    await r.queue.enqueue_at(second - 0.5, "q", "note", [{"to": "x", "id": "7"}])
    raw = '{"class":"note","queue":"q","args":[{"to":"x","id":"7"}]}'
    assert r.get("LRANGE", r.keys.delayed(second), 0, -1) == [raw]
    assert r.get("SMEMBERS", f"{r.namespace}:timestamps:{raw}") == {f"delayed:{second}"}
    assert r.get("ZRANGE", r.keys.schedule, 0, -1, "WITHSCORES") == [str(second), str(second)]


async def test_a_worker_is_registered_for_ruby_and_node_and_its_heartbeats_come_first(r: Resque) -> None:
    client: Any = r.valkey.client
    with client.monitor() as monitor:
        [slot] = await r.slots(queues=["a", "b"])
        written: list[tuple[str, str]] = []
        while not written or written[-1][0] != "SADD":
            words = str(monitor.next_command()["command"]).split()
            if words[0] in ("HSET", "SET", "SADD") and words[1].startswith(r.namespace):
                written.append((words[0], words[1].removeprefix(f"{r.namespace}:")))
    *signs, (_, last) = written
    assert last == "workers"
    assert set(signs) == {
        ("HSET", "workers:heartbeat"),
        ("SET", f"worker:{slot.id}:started"),
        ("SET", f"worker:ping:{slot.name}"),
    }
    assert r.get("SMEMBERS", r.keys.workers) == {slot.id}
    now, heartbeat = time.time(), r.get("HGET", r.keys.heartbeats, slot.id)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", heartbeat)
    started = r.get("GET", r.keys.started(slot.id))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \+0000", started)
    ping = json.loads(r.get("GET", r.keys.ping(slot.name)))
    assert (list(ping), ping["name"], ping["queues"]) == (["time", "name", "queues"], slot.name, "a,b")
    assert all(abs((dates.moment_of(moment) or 0) - now) < 60 for moment in (heartbeat, started, ping["time"]))


async def test_no_ruby_worker_takes_our_worker_for_dead(r: Resque) -> None:
    """Ruby checks the processes of all workers that have its own host name."""
    first, second = await r.slots(2, queues=["a", "b"])
    [other] = await r.slots(queues=["a", "b"])
    for slot in (first, second, other):
        host, pid, queues = slot.id.split(":")
        assert re.fullmatch(r"[A-Za-z0-9.-]+", host)
        assert host != socket.gethostname()
        assert re.fullmatch(r"\d+\+\d+", pid)
        assert (queues, slot.name) == ("a,b", f"{host}:{pid}")
    assert first.name.split(":")[0] == second.name.split(":")[0] != other.name.split(":")[0], (
        "a name is never used twice"
    )


async def test_the_record_of_a_running_job_holds_it_unchanged(r: Resque) -> None:
    raw = '{"class":"note","args":[[],{},12345678901234567,1.0,"é"],"more":1}'
    r.get("RPUSH", r.keys.queue('a/"b"'), raw)
    [slot] = await r.slots(queues=['a/"b"'])
    [claim] = (await r.claims('a/"b"').take([slot], busy=False)).claims
    record = r.get("GET", r.keys.worker(slot.id))
    assert record.endswith(f',"payload":{raw}}}')
    members = json.loads(record)
    assert list(members) == ["token", "queue", "run_at", "worker", "payload"]
    assert (members["token"], members["queue"], members["worker"]) == (claim.token, 'a/"b"', slot.name)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", members["run_at"])


async def test_an_unregistered_worker_leaves_no_keys(r: Resque) -> None:
    here = registration.Registration(r.scripts, r.connections.thread, r.keys, ["q"], 5.0, lambda: None)
    [slot] = await here.add(1)
    r.get("RPUSH", r.keys.queue("q"), RAW)
    [claim] = (await r.claims().take([slot], busy=False)).claims
    assert await r.claims().acknowledge(claim)
    assert any(slot.name in key for key in r.all_keys())
    await here.remove([slot])
    assert [key for key in r.all_keys() if slot.name in key] == []
    for command, key in (("SMEMBERS", r.keys.workers), ("HGETALL", r.keys.heartbeats)):
        assert not r.get(command, key)
    assert r.get("ZCARD", r.keys.leases) == 0


# Data that other programs write, and keys that they remove.


async def test_invalid_data_in_any_key_affects_neither_the_observer_nor_the_housekeeping(r: Resque) -> None:
    for member in ("", "one", "one:two", "one:two:", "h:1:q:with:colons", b"\xff:1:q"):
        r.get("SADD", r.keys.workers, member)
        r.get("HSET", r.keys.heartbeats, member, "not a time")
    r.get("SET", r.keys.ping("h:1"), "[]")
    r.get("SET", r.keys.worker("h:1:q:with:colons"), '{"payload":null}')
    r.get("HSET", r.keys.key("delayed:last_enqueued_at"), "nightly", "2026-11-21 07:49:51 +0000")
    r.get(
        "RPUSH",
        r.keys.delayed(1),
        "not JSON",
        '{"class":"note","args":[]}',
        '{"class":"note","queue":"","args":[]}',
        RAW,
    )
    r.get("ZADD", r.keys.schedule, 1, 1)
    housekeeping = r.housekeeping(stuck_seconds=0.0)
    assert await housekeeping.clean_other_programs() == 0
    assert await housekeeping.reap() == 0
    assert await housekeeping.promote() == 4
    assert await housekeeping.set_aside() == 3
    assert r.waiting() == [RAW]
    not_json, no_queue, empty_queue = r.failed()
    assert (not_json["raw"], not_json["error"][:9]) == ("not JSON", "not JSON:")
    assert no_queue["error"] == empty_queue["error"] == "it names no queue"
    assert no_queue["queue"] == no_queue["payload"]["queue"] == "Unreadable", "Ruby enqueues nothing without a queue"
    assert len(await r.observer.workers()) == 6
    assert [state.alive for state in await r.observer.workers()] == [False] * 6
    assert await DelayedJobs(r.queue).count() == (0, False)


async def test_a_slot_that_another_program_removed_gets_no_more_jobs(r: Resque) -> None:
    slots = await r.slots(2)
    r.get("RPUSH", r.keys.queue("q"), RAW)
    r.get("SREM", r.keys.workers, slots[1].id)  # as Node's forceClean does
    with pytest.raises(claims.LeaseLost):
        await r.claims().take(slots, busy=False)
    assert r.waiting() == [RAW]


async def test_a_job_that_another_program_has_filed_is_not_put_back_when_its_worker_unregisters(r: Resque) -> None:
    here = registration.Registration(r.scripts, r.connections.thread, r.keys, ["q"], 0.05, lambda: None)
    [slot] = await here.add(1)
    r.get("RPUSH", r.keys.queue("q"), RAW)
    [claim] = (await r.claims().take([slot], busy=False)).claims
    r.get("SREM", r.keys.workers, slot.id)
    filed = json.dumps({"worker": slot.name, "queue": "q", "payload": json.loads(RAW)}, separators=(",", ":"))
    r.get("RPUSH", r.keys.failed, filed)
    assert not await r.claims().release(claim)
    await here.remove([slot])
    await until(r.housekeeping().reap, "the lease has ended")
    assert (r.waiting(), r.failed()) == ([], [json.loads(filed)])
    assert [key for key in r.all_keys() if slot.name in key] == []


async def test_the_job_of_a_worker_that_another_program_removed_goes_to_the_failed_list(r: Resque) -> None:
    [slot] = await r.slots(lease_seconds=0.05, queues=["a/b"])
    raw = wire.make_job("a/b", "note", [{"text": NASTY, "id": "7"}]).raw
    r.get("RPUSH", r.keys.queue("a/b"), raw)
    await r.claims("a/b").take([slot], busy=False)
    r.get("SREM", r.keys.workers, slot.id)
    await until(r.housekeeping().reap, "the lease has ended")
    [record] = r.get("LRANGE", r.keys.failed, 0, -1)
    assert re.fullmatch(
        r'\{"failed_at":"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d UTC","payload":'
        + re.escape(raw)
        + r',"exception":"WorkerLost","error":"[^"]+","backtrace":\[\],"worker":"[^"]+:a/b","queue":"a/b"\}',
        record,
    )
    assert r.waiting("a/b") == []


async def test_we_do_not_clean_workers_of_node_while_node_leads(r: Resque) -> None:
    r.get("SADD", r.keys.workers, "node:1:q")
    r.get("SET", r.keys.ping("node:1"), '{"time":1,"name":"node:1","queues":"q"}')
    r.get("SET", r.keys.worker("node:1:q"), f'{{"queue":"q","payload":{RAW},"worker":"node:1","run_at":"x"}}')
    r.get("SET", r.keys.node_lock, "node:2")
    assert await r.housekeeping(stuck_seconds=1.0).clean_other_programs() == 0
    r.get("DEL", r.keys.node_lock)
    assert await r.housekeeping(stuck_seconds=1.0).clean_other_programs() == 1
    [record] = r.failed()
    assert record["payload"] == json.loads(RAW)
    assert record["backtrace"][1] == "queue#forceCleanWorker", "what Node's retryStuckJobs looks for"
    assert r.get("SMEMBERS", r.keys.workers) == set()


async def test_a_worker_registers_again_even_if_redis_does_not_answer_at_first(
    r: Resque, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = registration.Registration(r.scripts, r.connections.thread, r.keys, ["q"], 5.0, lambda: None)
    before = await here.add(3)

    async def no_answer(*_: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(here, "_register", no_answer)
        with pytest.raises(ConnectionError):
            await here.register_again()
    after = await here.register_again()
    assert len(after) == 3
    assert not {slot.id for slot in before} & {slot.id for slot in after}
    assert {slot.id for slot in here.slots.values()} == {slot.id for slot in after}


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
