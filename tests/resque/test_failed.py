"""The failed list: records of all programs are read, retried and removed by their exact text, also concurrently."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynckit.redis_client import redis_client
from resque import failed as failed_module
from resque import items as items_module
from resque import keys as keys_module
from resque import wire
from tests.support.programs import Valkey, a_name

NotThere, CannotRequeue = failed_module.NotThere, failed_module.CannotRequeue

PAYLOAD = '{"class":"sendEmail","args":[1]}'


@dataclass
class Ward:
    """The test's own failed list."""

    redis: Any
    keys: Any
    failed: Any

    async def fill(self, *records: str | bytes) -> None:
        await self.redis.rpush(self.keys.failed, *records)

    async def texts(self, key: str | None = None) -> list[bytes]:
        texts: list[bytes] = await self.redis.lrange(key or self.keys.failed, 0, -1)
        return texts

    async def queued(self, queue: str = "q") -> list[bytes]:
        return await self.texts(self.keys.queue(queue))


@pytest.fixture
async def ward(valkey: Valkey) -> AsyncIterator[Ward]:
    async with redis_client(valkey.url) as redis:
        keys = keys_module.Keys(a_name())
        yield Ward(redis, keys, failed_module.FailedList(redis, keys))


def record(error: object = "no such user", payload: str = PAYLOAD, **more: Any) -> str:
    """A record as Ruby writes it, with this payload unchanged."""
    members = {"exception": "Refused", "error": error, "backtrace": ["a", "b"], "worker": "h:1:q", "queue": "q"} | more
    date = json.dumps(members.pop("failed_at", "2026/11/21 07:39:33 UTC"))
    return f'{{"failed_at":{date},"payload":{payload},{json.dumps(members)[1:]}'


def read(text: str | bytes, size: int | None = None) -> Any:
    raw = text.encode() if isinstance(text, str) else text
    return failed_module.read_failure(items_module.Item(6, "f" * 40, len(raw) if size is None else size, raw))


# Reading


async def test_the_newest_failure_comes_first_and_pages_do_not_shift_when_more_jobs_fail(ward: Ward) -> None:
    await ward.fill(*(record(number) for number in range(1, 6)))
    first = await ward.failed.list(count=2)
    assert [(failure.number, failure.error) for failure in first] == [(5, "5"), (4, "4")]
    await ward.fill(record(6))
    second = await ward.failed.list(before=first[-1].number, count=2)
    assert [failure.number for failure in second] == [3, 2]
    assert [failure.number for failure in await ward.failed.list(before=2)] == [1]
    assert await ward.failed.list(before=1) == []
    assert await ward.failed.count() == 6


async def test_a_key_that_is_not_a_list_counts_as_empty(ward: Ward) -> None:
    await ward.redis.set(ward.keys.failed, "x")
    assert await ward.failed.list() == []
    assert await ward.failed.count() == 0
    with pytest.raises(NotThere):
        await ward.failed.numbered(1)
    with pytest.raises(NotThere):
        await ward.failed.find("f" * 16)


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2026/11/21 07:39:33 UTC", 1795246773.0),
        ("2026-11-21T07:39:33Z", 1795246773.0),
        ("Sat Nov 21 2026 07:39:33 GMT+0000 (Coordinated Universal Time)", 1795246773.0),
        (1795246773, 1795246773.0),
        ("1795246773", 1795246773.0),
        (None, None),
        ("yesterday", None),
        ("0 JAN 0:10000000000 0", None),
        ([], None),
        (True, None),
    ],
)
def test_a_date_in_a_known_format_is_read_and_any_other_is_unknown(written: object, moment: float | None) -> None:
    assert read(record(failed_at=written)).failed_at == moment


@pytest.mark.parametrize(
    ("backtrace", "lines"),
    [
        (None, ()),
        ([], ()),
        (["a", "b"], ("a", "b")),
        ("a\nb", ("a", "b")),
        ([1, None], ("1", "")),
        ({"a": 1}, ('{"a":1}',)),
    ],
)
def test_a_backtrace_may_be_null_a_string_or_a_list(backtrace: object, lines: tuple[str, ...]) -> None:
    assert read(record(backtrace=backtrace)).backtrace == lines


def test_records_of_node_and_php_are_read() -> None:
    node = read(
        '{"worker":"h:1","queue":"q","payload":{"class":"c","queue":"q","args":[{"id":"7"}]},"exception":"TypeError",'
        '"error":"x is undefined","backtrace":null,"failed_at":"Sat Nov 21 2026 07:39:33 GMT+0000 (UTC)"}'
    )
    assert (node.worker, node.exception, node.job.id, node.flaw) == ("h:1", "TypeError", "7", "")
    php = read('{"failed_at":"Sat Nov 21 07:39:33 UTC 2026","payload":{"class":"c","args":[{}],"id":"x"},"queue":"q"}')
    assert (php.job.name, php.worker, php.error, php.flaw) == ("c", "", "", "")


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        (b"\xff\x00", "not JSON"),
        (b"", "not JSON"),
        (b"NaN", "not JSON"),
        (b"[" * 5000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"{}", "no job in the record"),
        (record(payload="null").encode(), "no job in the record"),
        (record(payload='"x"').encode(), "valid job: not a JSON object"),
        (record(payload="{}").encode(), 'valid job: no "class"'),
        (record(queue=None).encode(), "names no queue"),
        (record(queue="").encode(), "names no queue"),
        (record(queue=5).encode(), "names no queue"),
    ],
)
async def test_a_record_that_cannot_be_retried_says_why_and_stays(ward: Ward, text: bytes, flaw: str) -> None:
    await ward.fill(text)
    [failure] = await ward.failed.list()
    assert flaw in failure.flaw
    with pytest.raises(CannotRequeue, match=flaw):
        await ward.failed.requeue(failure.id, failure.number)
    assert await ward.failed.requeue_all() == (0, 1)
    assert await ward.texts() == [text]
    await ward.failed.remove(failure.id)
    assert await ward.texts() == []


async def test_a_record_that_ruby_has_retried_is_marked_and_not_retried_again(ward: Ward) -> None:
    """Ruby keeps the record in the list and adds the time of the retry."""
    await ward.fill(record(retried_at="2026/11/21 08:00:00 UTC"), record(2))
    _, failure = await ward.failed.list()
    assert (failure.retried, failure.flaw) == (True, "already retried, at 2026/11/21 08:00:00 UTC")
    assert await ward.failed.requeue_all() == (1, 1)
    with pytest.raises(CannotRequeue, match="already retried"):
        await ward.failed.requeue(failure.id, failure.number)
    assert await ward.queued() == [PAYLOAD.encode()]
    await ward.failed.remove(failure.id)
    assert await ward.texts() == []


async def test_the_record_of_an_invalid_job_has_a_payload_and_cannot_be_retried(ward: Ward) -> None:
    await ward.fill(
        wire.failure(
            None, queue="q", worker="h:1:q", exception="BadJob", error="e", backtrace=[], now=1.0, raw="invalid"
        )
    )
    [failure] = await ward.failed.list()
    assert (failure.job, failure.flaw) == (None, "there is no job in the record")
    payload = json.loads(failure.text)["payload"]
    assert (payload["class"], payload["args"]) == ("Unreadable", [])
    assert await ward.failed.requeue_all() == (0, 1)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
MEMBERS = st.sampled_from(["failed_at", "payload", "exception", "error", "backtrace", "worker", "queue", "x"])


@given(st.dictionaries(MEMBERS, JSON | st.builds(lambda args: {"class": "c", "args": args}, JSON)))
def test_no_record_makes_the_reader_raise(members: dict[str, Any]) -> None:
    failure = read(json.dumps(members, indent=1, ensure_ascii=False).encode(errors="replace"))
    assert failure.job is None or orjson.loads(failure.job.raw) is not None
    assert failure.flaw or failure.job


@given(st.binary(max_size=60))
def test_no_bytes_make_the_reader_raise(text: bytes) -> None:
    assert read(text).flaw


# Retrying and removing


@pytest.mark.parametrize(
    "payload",
    [
        '{"class":"c","args":[12345678901234567890123,1.0,1e2,[],{}]}',
        '{ "args" : [ "\\u00e9\\/" ] , "class" : "c" }',
        '{"class":"c","args":["}",{"payload":1}],"payload":{"a":"\\""}}',
    ],
)
async def test_a_retry_puts_the_exact_job_into_the_queue_of_its_record(ward: Ward, payload: str) -> None:
    await ward.fill(f'{{"payload" : 1, "queue":"other" ,\n "payload"\t: {payload}}}', record())
    [_, failure] = await ward.failed.list()
    await ward.failed.requeue(failure.id, failure.number)
    assert await ward.queued("other") == [payload.encode()]
    assert await ward.redis.smembers(ward.keys.queues) == {b"other"}
    assert await ward.texts() == [record().encode()]


async def test_two_simultaneous_retries_requeue_a_job_once(ward: Ward) -> None:
    await ward.fill(record(1), record(2))
    [_, failure] = await ward.failed.list()
    another = failed_module.FailedList(ward.redis, ward.keys)
    results = await asyncio.gather(
        *(who.requeue(failure.id, failure.number) for who in (ward.failed, another)), return_exceptions=True
    )
    assert sum(isinstance(result, NotThere) for result in results) == 1
    assert await ward.queued() == [PAYLOAD.encode()]
    assert await ward.texts() == [record(2).encode()]


async def test_a_record_is_found_after_it_has_moved(ward: Ward) -> None:
    await ward.fill(*(record(number) for number in range(1000)))
    failure = await ward.failed.numbered(701)
    await ward.redis.ltrim(ward.keys.failed, 400, -1)
    removed = await ward.failed.remove(failure.id, failure.number)
    assert (removed.error, removed.number) == ("700", 301)
    assert record(700).encode() not in await ward.texts()
    assert await ward.failed.count() == 599
    with pytest.raises(NotThere):
        await ward.failed.remove(failure.id, failure.number)
    last = await ward.failed.numbered(599)
    assert (await ward.failed.find(last.id, near=1)).number == 599, "also with a wrong number"


async def test_one_of_two_equal_records_is_requeued(ward: Ward) -> None:
    await ward.fill(record(), record(), record(3))
    failure = await ward.failed.numbered(1)
    await ward.failed.requeue(failure.id, 1)
    assert await ward.texts() == [record().encode(), record(3).encode()]
    await ward.failed.remove(failure.id, 1)
    assert await ward.texts() == [record(3).encode()]


async def test_two_simultaneous_retries_of_all_neither_lose_nor_duplicate_a_job(ward: Ward) -> None:
    unfit = [record(payload="null", error=number) for number in range(3)]
    payloads = [f'{{"class":"c","args":[{number}]}}' for number in range(250)]
    texts = [record(payload=payload) for payload in payloads]
    await ward.fill(unfit[0], *texts[:150], unfit[1], b"\xff", *texts[150:], unfit[2])
    another = failed_module.FailedList(ward.redis, ward.keys)
    one, two = await asyncio.gather(ward.failed.requeue_all(), another.requeue_all())
    assert one[0] + two[0] == 250
    assert sorted(await ward.queued()) == sorted(payload.encode() for payload in payloads)
    assert len(await ward.texts()) == 4
    assert await ward.failed.requeue_all() == (0, 4)


async def test_a_job_stays_in_the_failed_list_if_its_queue_is_not_a_list(ward: Ward) -> None:
    await ward.redis.set(ward.keys.queue("q"), "x")
    await ward.fill(record())
    [failure] = await ward.failed.list()
    with pytest.raises(CannotRequeue, match="is not a list"):
        await ward.failed.requeue(failure.id)
    assert await ward.failed.requeue_all() == (0, 1)
    assert await ward.texts() == [record().encode()]


async def test_a_record_that_is_too_large_to_show_can_be_retried(ward: Ward) -> None:
    payload = json.dumps({"class": "c", "args": ["x" * 200_000]})
    await ward.fill(record(payload=payload), record(payload=payload.replace("x", "y")))
    [_, failure] = await ward.failed.list()
    assert (failure.job, len(failure.text)) == (None, items_module.MOST_BYTES)
    assert failure.size == len(record(payload=payload))
    await ward.failed.requeue(failure.id, failure.number)
    assert await ward.failed.requeue_all() == (1, 0)
    assert await ward.queued() == [payload.encode(), payload.replace("x", "y").encode()]


async def test_remove_all_returns_how_many_were_removed(ward: Ward) -> None:
    await ward.fill(record(1), b"\xff")
    assert await ward.failed.remove_all() == 2
    assert await ward.failed.remove_all() == 0
    assert await ward.texts() == []
