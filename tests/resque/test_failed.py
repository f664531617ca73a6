"""The failed list: records of all programs are read, retried and removed by their exact text, also concurrently."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resque import failed as failed_module
from resque import items as items_module
from resque import wire
from tests.support.failed import PAYLOAD, CannotRequeue, Failures, NotThere, record


def read(text: str | bytes, size: int | None = None) -> Any:
    raw = text.encode() if isinstance(text, str) else text
    return failed_module.read_failure(items_module.Item(6, "f" * 40, len(raw) if size is None else size, raw))


# Reading


async def test_the_newest_failure_comes_first_and_pages_do_not_shift_when_more_jobs_fail(failures: Failures) -> None:
    await failures.fill(*(record(number) for number in range(1, 6)))
    first = await failures.failed.list(count=2)
    assert [(failure.number, failure.error) for failure in first] == [(5, "5"), (4, "4")]
    await failures.fill(record(6))
    second = await failures.failed.list(before=first[-1].number, count=2)
    assert [failure.number for failure in second] == [3, 2]
    assert [failure.number for failure in await failures.failed.list(before=2)] == [1]
    assert await failures.failed.list(before=1) == []
    assert await failures.failed.count() == 6


async def test_a_key_that_is_not_a_list_counts_as_empty(failures: Failures) -> None:
    await failures.redis.set(failures.keys.failed, "x")
    assert await failures.failed.list() == []
    assert await failures.failed.count() == 0
    with pytest.raises(NotThere):
        await failures.failed.numbered(1)
    with pytest.raises(NotThere):
        await failures.failed.find("f" * 16)


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
async def test_a_record_that_cannot_be_retried_says_why_and_stays(failures: Failures, text: bytes, flaw: str) -> None:
    await failures.fill(text)
    [failure] = await failures.failed.list()
    assert flaw in failure.flaw
    with pytest.raises(CannotRequeue, match=flaw):
        await failures.failed.requeue(failure.id, failure.number)
    assert await failures.failed.requeue_all() == (0, 1)
    assert await failures.texts() == [text]
    await failures.failed.remove(failure.id)
    assert await failures.texts() == []


async def test_a_record_that_ruby_has_retried_is_marked_and_not_retried_again(failures: Failures) -> None:
    """Ruby keeps the record in the list and adds the time of the retry."""
    await failures.fill(record(retried_at="2026/11/21 08:00:00 UTC"), record(2))
    _, failure = await failures.failed.list()
    assert (failure.retried, failure.flaw) == (True, "already retried, at 2026/11/21 08:00:00 UTC")
    assert await failures.failed.requeue_all() == (1, 1)
    with pytest.raises(CannotRequeue, match="already retried"):
        await failures.failed.requeue(failure.id, failure.number)
    assert await failures.queued() == [PAYLOAD.encode()]
    await failures.failed.remove(failure.id)
    assert await failures.texts() == []


async def test_the_record_of_an_invalid_job_has_a_payload_and_cannot_be_retried(failures: Failures) -> None:
    await failures.fill(
        wire.failure(
            None, queue="q", worker="h:1:q", exception="BadJob", error="e", backtrace=[], now=1.0, raw="invalid"
        )
    )
    [failure] = await failures.failed.list()
    assert (failure.job, failure.flaw) == (None, "there is no job in the record")
    payload = json.loads(failure.text)["payload"]
    assert (payload["class"], payload["args"]) == ("Unreadable", [])
    assert await failures.failed.requeue_all() == (0, 1)


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
