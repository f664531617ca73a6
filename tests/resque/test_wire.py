"""The wire format: JSON, dates, failure records and jobs, as Ruby and JavaScript write them."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resque import dates, wire
from tests.support.node_peer import NODE, rewrite
from tests.support.resque import NASTY, RAW, Resque

NOW = 1795246773.9  # 2026-11-21 07:39:33 UTC

needs_node = pytest.mark.skipif(NODE is None, reason="there is no node")


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
