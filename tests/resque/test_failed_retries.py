"""The failed list: retrying and removing."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from asynckit.redis_client import redis_client
from resque import failed as failed_module
from resque import items as items_module
from resque import keys as keys_module
from tests.support.failed import PAYLOAD, CannotRequeue, NotThere, Ward, record
from tests.support.programs import a_name
from tests.support.servers import Valkey


@pytest.fixture
async def ward(valkey: Valkey) -> AsyncIterator[Ward]:
    async with redis_client(valkey.url) as redis:
        keys = keys_module.Keys(a_name())
        yield Ward(redis, keys, failed_module.FailedList(redis, keys))


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
