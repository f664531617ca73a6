"""The failed list: retrying and removing."""

import asyncio
import json

import pytest

from resque import failed as failed_module
from resque import items as items_module
from tests.support.failed import PAYLOAD, CannotRequeue, Failures, NotThere, record

# Retrying and removing


@pytest.mark.parametrize(
    "payload",
    [
        '{"class":"c","args":[12345678901234567890123,1.0,1e2,[],{}]}',
        '{ "args" : [ "\\u00e9\\/" ] , "class" : "c" }',
        '{"class":"c","args":["}",{"payload":1}],"payload":{"a":"\\""}}',
    ],
)
async def test_a_retry_puts_the_exact_job_into_the_queue_of_its_record(failures: Failures, payload: str) -> None:
    await failures.fill(f'{{"payload" : 1, "queue":"other" ,\n "payload"\t: {payload}}}', record())
    [_, failure] = await failures.failed.list()
    await failures.failed.requeue(failure.id, failure.number)
    assert await failures.queued("other") == [payload.encode()]
    assert await failures.redis.smembers(failures.keys.queues) == {b"other"}
    assert await failures.texts() == [record().encode()]


async def test_two_simultaneous_retries_requeue_a_job_once(failures: Failures) -> None:
    await failures.fill(record(1), record(2))
    [_, failure] = await failures.failed.list()
    another = failed_module.FailedList(failures.redis, failures.keys)
    results = await asyncio.gather(
        *(who.requeue(failure.id, failure.number) for who in (failures.failed, another)), return_exceptions=True
    )
    assert sum(isinstance(result, NotThere) for result in results) == 1
    assert await failures.queued() == [PAYLOAD.encode()]
    assert await failures.texts() == [record(2).encode()]


async def test_a_record_is_found_after_it_has_moved(failures: Failures) -> None:
    await failures.fill(*(record(number) for number in range(1000)))
    failure = await failures.failed.numbered(701)
    await failures.redis.ltrim(failures.keys.failed, 400, -1)
    removed = await failures.failed.remove(failure.id, failure.number)
    assert (removed.error, removed.number) == ("700", 301)
    assert record(700).encode() not in await failures.texts()
    assert await failures.failed.count() == 599
    with pytest.raises(NotThere):
        await failures.failed.remove(failure.id, failure.number)
    last = await failures.failed.numbered(599)
    assert (await failures.failed.find(last.id, near=1)).number == 599, "also with a wrong number"


async def test_one_of_two_equal_records_is_requeued(failures: Failures) -> None:
    await failures.fill(record(), record(), record(3))
    failure = await failures.failed.numbered(1)
    await failures.failed.requeue(failure.id, 1)
    assert await failures.texts() == [record().encode(), record(3).encode()]
    await failures.failed.remove(failure.id, 1)
    assert await failures.texts() == [record(3).encode()]


async def test_two_simultaneous_retries_of_all_neither_lose_nor_duplicate_a_job(failures: Failures) -> None:
    unfit = [record(payload="null", error=number) for number in range(3)]
    payloads = [f'{{"class":"c","args":[{number}]}}' for number in range(250)]
    texts = [record(payload=payload) for payload in payloads]
    await failures.fill(unfit[0], *texts[:150], unfit[1], b"\xff", *texts[150:], unfit[2])
    another = failed_module.FailedList(failures.redis, failures.keys)
    one, two = await asyncio.gather(failures.failed.requeue_all(), another.requeue_all())
    assert one[0] + two[0] == 250
    assert sorted(await failures.queued()) == sorted(payload.encode() for payload in payloads)
    assert len(await failures.texts()) == 4
    assert await failures.failed.requeue_all() == (0, 4)


async def test_a_job_stays_in_the_failed_list_if_its_queue_is_not_a_list(failures: Failures) -> None:
    await failures.redis.set(failures.keys.queue("q"), "x")
    await failures.fill(record())
    [failure] = await failures.failed.list()
    with pytest.raises(CannotRequeue, match="is not a list"):
        await failures.failed.requeue(failure.id)
    assert await failures.failed.requeue_all() == (0, 1)
    assert await failures.texts() == [record().encode()]


async def test_a_record_that_is_too_large_to_show_can_be_retried(failures: Failures) -> None:
    payload = json.dumps({"class": "c", "args": ["x" * 200_000]})
    await failures.fill(record(payload=payload), record(payload=payload.replace("x", "y")))
    [_, failure] = await failures.failed.list()
    assert (failure.job, len(failure.text)) == (None, items_module.MOST_BYTES)
    assert failure.size == len(record(payload=payload))
    await failures.failed.requeue(failure.id, failure.number)
    assert await failures.failed.requeue_all() == (1, 0)
    assert await failures.queued() == [payload.encode(), payload.replace("x", "y").encode()]


async def test_remove_all_returns_how_many_were_removed(failures: Failures) -> None:
    await failures.fill(record(1), b"\xff")
    assert await failures.failed.remove_all() == 2
    assert await failures.failed.remove_all() == 0
    assert await failures.texts() == []
