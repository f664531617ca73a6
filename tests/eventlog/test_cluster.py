"""The log on partitions in a cluster: on several nodes, while slots move, and after a node has lost writes."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from redis.crc import key_slot
from redis.exceptions import ResponseError

from asynckit.redis_client import blocking_redis_client, redis_client
from eventlog.keys import PARTITIONS, cursor, key
from eventlog.partitions import PartitionedLog
from eventlog.streams import StreamLog
from lab.harness.slots import Cluster
from tests.support.cluster import a_cluster
from tests.support.event_log import an_event, append, claim_all, commit, numbers


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with a_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
async def new_log(cluster: Cluster) -> AsyncIterator[Any]:
    for client in cluster.clients:
        client.flushall()
    async with AsyncExitStack() as stack:

        async def open_log(kind: Any = PartitionedLog, **more: Any) -> Any:
            redis = await stack.enter_async_context(redis_client(cluster.url))
            more = {"partition_events": 5} | more if kind is PartitionedLog else more
            return await stack.enter_async_context(kind(redis, 10.0, **more))

        yield open_log


async def test_the_partitions_are_on_all_nodes_and_no_script_touches_two_slots(cluster: Cluster, new_log: Any) -> None:
    log = await new_log()
    await append(log, 100)  # 20 partitions
    assert await claim_all(log, "email") == list(range(100))
    [first, second, *_] = await log.claim("audit", 3)
    thread = blocking_redis_client(cluster.url)
    assert await asyncio.to_thread(log.extend, thread, [first, second]) == 0
    thread.close()
    assert await log.park(first, "no reason")
    assert [one.position for one in await log.parked("audit")] == [first.position]
    assert await log.unpark("audit") == 1
    assert await log.delay(second, 100.0, 1)
    assert (await log.delays("audit", [second]))[second.position][1] == 1
    await claim_all(log, "audit")
    await log.replay("email", "beginning")
    assert await claim_all(log, "email") == list(range(100))
    assert (await log.lag("email")).waiting == 0
    for client in cluster.clients:
        assert list(client.scan_iter("eventlog:state:*")), "each node has some of the partitions"
    assert (await log.trim(older_than=0, force=True)).events >= 95


async def test_a_hint_reaches_a_consumer_from_every_node(new_log: Any) -> None:
    producer, consumer = await new_log(), await new_log()
    for number in range(12):
        waiting = asyncio.create_task(consumer.claim("email", 1, wait=10.0))
        await asyncio.sleep(0.02)
        await producer.append(an_event(number))
        [claimed] = await waiting
        assert numbers([claimed]) == [number]
        assert await consumer.commit(claimed)


async def test_streams_are_on_one_node(new_log: Any) -> None:
    log = await new_log(StreamLog)
    await append(log, 20)
    assert await claim_all(log, "email") == list(range(20))
    await log.replay("email", "beginning")
    assert await claim_all(log, "email") == list(range(20))
    assert (await log.lag("email")).waiting == 0


async def move_all(cluster: Cluster, at_once: bool, stop: asyncio.Event) -> int:
    """Move the slots of the list, the cursor and each partition to other nodes, again and again. Returns how many."""
    moved = 0
    while not stop.is_set():
        found = [name for client in cluster.clients for name in client.scan_iter("eventlog:state:*")]
        for name in (PARTITIONS, cursor("email"), *found[-4:]):
            if stop.is_set():
                break
            if at_once:
                await asyncio.to_thread(cluster.move_at_once, name)
            else:
                await asyncio.to_thread(cluster.move(name).run)
            moved += 1
    return moved


@pytest.mark.parametrize("at_once", [True, False], ids=["by one command", "step by step"])
async def test_nothing_is_lost_while_slots_move(cluster: Cluster, new_log: Any, at_once: bool) -> None:
    producer, consumer = await new_log(), await new_log()
    await append(producer, 1)
    stop = asyncio.Event()
    moving = asyncio.create_task(move_all(cluster, at_once, stop))
    found: set[int] = set()

    async def consume() -> None:
        while len(found) < 200:
            with suppress(ResponseError):  # step by step, a script ends when it has emptied a key and reads it again
                claimed = await consumer.claim("email", 7, wait=1.0)
                found.update(numbers(claimed))
                await commit(consumer, claimed)

    async def produce() -> None:
        for number in range(1, 200):
            event = an_event(number)
            while True:
                with suppress(ResponseError):  # the slot was being moved for too long
                    await producer.append(event)
                    break

    async with asyncio.timeout(100):
        await asyncio.gather(produce(), consume())
    stop.set()
    assert await moving > 3
    assert found == set(range(200))
    lag = await consumer.lag("email")
    assert lag.waiting == 0


# A node that fails may lose its last writes, while the other nodes keep what was written after them.


async def claim_number(log: Any, number: int) -> list[int]:
    """Claim and commit until this many events have come; the reader looks for a lost seal once a second."""
    found: list[int] = []
    async with asyncio.timeout(20):
        while len(found) < number:
            claimed = await log.claim("email", 7, wait=2.0)
            await commit(log, claimed)
            found += numbers(claimed)
    return found


def client_of(cluster: Cluster, name: str) -> Any:
    return cluster.clients[cluster.owner(key_slot(name.encode()))]


async def test_a_lost_seal_is_made_again(cluster: Cluster, new_log: Any) -> None:
    log = await new_log()
    await append(log, 12)  # three partitions after partition 0
    [_, first, *_] = await log.partitions()
    state = key(first.number, "state")
    client_of(cluster, state).hdel(state, "next", "length", "sealed")
    assert await claim_number(await new_log(), 12) == list(range(12))
    assert client_of(cluster, state).hget(state, "next")


async def test_a_partition_that_was_sealed_twice_hides_no_event(cluster: Cluster, new_log: Any) -> None:
    """A producer that still knows the partition as the open one seals it again, and names a later partition."""
    late, log = await new_log(), await new_log()
    positions = await append(late, 3)
    partition = positions[0].partition("-")[0]
    await append(log, 3, 12)
    state = key(partition, "state")
    client_of(cluster, state).hdel(state, "next", "length", "sealed")
    await append(late, 12, 14)
    assert sorted(await claim_number(await new_log(), 14)) == list(range(14))


async def test_a_lost_replay_stops_no_consumer(cluster: Cluster, new_log: Any) -> None:
    log = await new_log()
    await append(log, 12)
    assert await claim_all(log, "email") == list(range(12))
    place = cursor("email")
    before = client_of(cluster, place).hgetall(place)
    await log.replay("email", "beginning")
    assert await claim_all(log, "email") == list(range(12))
    client_of(cluster, place).delete(place)
    client_of(cluster, place).hset(place, mapping=before)
    await append(log, 12, 14)
    found: set[int] = set()
    consumer = await new_log()
    async with asyncio.timeout(20):
        while not {12, 13} <= found:
            claimed = await consumer.claim("email", 7, wait=2.0)
            found |= {*numbers(claimed)}
            await commit(consumer, claimed)
