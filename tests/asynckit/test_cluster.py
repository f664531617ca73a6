"""The clients for a Redis Cluster: which node gets a command, and what happens while a slot moves."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from redis.crc import key_slot
from redis.exceptions import ClusterDownError, MovedError, ResponseError, TryAgainError

from asynckit import cluster_client
from asynckit.cluster import Topology, read_cluster_url
from asynckit.cluster_client import ClusterRedis, key_of
from asynckit.connections import NotConnected
from asynckit.redis_client import blocking_redis_client, describe, redis_client
from common.handover import handover_error
from common.mail.errors import CannotAccept
from lab.harness.slots import Cluster
from tests.support.cluster import a_cluster
from tests.support.programs import LIMIT, a_name, closed_port


@pytest.mark.parametrize(
    ("url", "hosts", "node"),
    [
        ("redis+cluster://a", (("a", 6379),), "redis://a:6379/0"),
        ("redis+cluster://a:1,b:2/", (("a", 1), ("b", 2)), "redis://a:1/0"),
        ("redis+cluster://u:p%40@a,[::1]:5/0", (("a", 6379), ("::1", 5)), "redis://u:p%40@a:6379/0"),
        ("rediss+cluster://a?ssl_ca_certs=x", (("a", 6379),), "rediss://a:6379/0?ssl_ca_certs=x"),
    ],
)
def test_a_cluster_url_is_read(url: str, hosts: tuple[tuple[str, int], ...], node: str) -> None:
    assert read_cluster_url(url) == (hosts, node)


@pytest.mark.parametrize(
    "url", ["redis+cluster://", "redis+cluster://a/1", "redis+cluster://a:x", "redis+cluster://a:0", "redis+cluster://u:horse@"]
)  # fmt: skip
def test_a_bad_cluster_url_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="expected redis") as error:
        read_cluster_url(url)
    assert "horse" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("GET", "k"), "k"),
        (("EVALSHA", "sha", 2, "k", "l", "v"), "k"),
        (("EVALSHA", "sha", 0, "v"), None),
        (("XREAD", b"BLOCK", "5", b"STREAMS", "k", "0"), "k"),
        (("XINFO STREAM", "k"), "k"),
        (("SCRIPT LOAD", "x"), None),
        (("TIME",), None),
    ],
)
def test_the_key_of_a_command(words: tuple[Any, ...], key: str | None) -> None:
    assert key_of(words) == key


def test_a_node_that_does_not_know_its_address_is_the_one_that_was_asked() -> None:
    topology = Topology([("a", 1)], {})
    with pytest.raises(ClusterDownError):
        topology.owner(5)
    topology._remember([[0, 9, [b"", 1, b"id"], [b"b", 2, b"id"]]], ("a", 1))
    assert topology.owner(5) == ("a", 1)
    assert topology._candidates() == [("a", 1), ("b", 2)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with a_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def keys_on_all_nodes() -> list[str]:
    names = [f"{a_name()}{number}" for number in range(30)]
    assert len({key_slot(name.encode()) // 5462 for name in names}) == 3
    return names


async def test_a_pipeline_reaches_all_nodes_and_keeps_the_order_of_the_answers(cluster: Cluster) -> None:
    names = keys_on_all_nodes()
    async with redis_client(cluster.url) as redis:
        pipeline = redis.pipeline(transaction=False)
        for number, name in enumerate(names):
            pipeline.set(name, number)
            pipeline.get(name)
        answers = await pipeline.execute()
        assert answers[1::2] == [str(number).encode() for number in range(30)]
        both = redis.pipeline(transaction=True)
        both.set("{tag}a", 1)
        both.set("{tag}b", 2)
        both.mget("{tag}a", "{tag}b")
        assert (await both.execute())[2] == [b"1", b"2"]
        pipeline.get(names[0])
        pipeline.execute_command("LLEN", names[1])
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await pipeline.execute()


async def test_wait_goes_to_the_node_of_the_write_before_it(cluster: Cluster) -> None:
    for client in cluster.clients:
        client.config_resetstat()
    name = keys_on_all_nodes()[0]
    async with redis_client(cluster.url) as redis:
        pipeline = redis.pipeline(transaction=False)
        pipeline.set(name, 1)
        pipeline.execute_command("WAIT", 0, 10)
        await pipeline.execute()
    waited = ["cmdstat_wait" in client.info("commandstats") for client in cluster.clients]
    assert waited.index(True) == cluster.owner(key_slot(name.encode()))


async def test_a_key_that_has_moved_is_found_by_asking_on_the_same_connection(cluster: Cluster) -> None:
    tag = f"{{{a_name()}}}"
    async with redis_client(cluster.url) as redis:
        for number in range(4):
            await redis.set(f"{tag}{number}", number)
        move = cluster.move(tag)
        move.begin()
        move.move_keys(2)
        pipeline = redis.pipeline(transaction=False)
        for number in range(4):
            assert await redis.get(f"{tag}{number}") == str(number).encode()
            pipeline.get(f"{tag}{number}")
        await asyncio.gather(*[redis.set(f"{tag}new{number}", number) for number in range(20)])
        assert await pipeline.execute() == [b"0", b"1", b"2", b"3"]
        move.move_keys()
        move.end()
        assert await redis.get(f"{tag}new19") == b"19"


async def test_a_script_waits_until_all_its_keys_are_at_one_node(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = asyncio.Event()

    async def redirected(self: Any, slot: int, node: Any, error: Any) -> Any:
        if isinstance(error, TryAgainError):
            refused.set()
        return await follow(self, slot, node, error)

    follow = cluster_client.ClusterRedis._redirected
    monkeypatch.setattr(cluster_client.ClusterRedis, "_redirected", redirected)
    tag = f"{{{a_name()}}}"
    async with redis_client(cluster.url) as redis:
        keys = [f"{tag}{number}" for number in range(2)]
        await redis.mset(dict.fromkeys(keys, 1))
        move = cluster.move(tag)
        move.begin()
        move.move_keys(1)
        script = "return redis.call('INCR', KEYS[1]) + redis.call('INCR', KEYS[2])"
        running = asyncio.ensure_future(redis.eval(script, 2, *keys))
        await asyncio.wait_for(refused.wait(), LIMIT)
        refused.clear()
        await asyncio.wait_for(refused.wait(), LIMIT)
        assert not running.done(), "it has been refused twice, and is still tried"
        move.move_keys()
        move.end()
        assert await running == 4


async def test_a_client_for_one_key_follows_its_slot(cluster: Cluster) -> None:
    tag = f"{{{a_name()}}}"
    thread = blocking_redis_client(cluster.url, key=tag)
    async with redis_client(cluster.url, key=tag) as redis:
        await asyncio.gather(*[redis.set(f"{tag}{number}", number) for number in range(5)])
        await asyncio.to_thread(thread.set, f"{tag}t", 1)
        cluster.move_at_once(tag)
        with pytest.raises(MovedError) as error:
            await redis.set(f"{tag}0", 1)
        assert describe(error.value) == "Redis has moved the keys to another node"
        await asyncio.gather(*[redis.set(f"{tag}{number}", number) for number in range(5)])
        with pytest.raises(MovedError):
            await asyncio.to_thread(thread.set, f"{tag}t", 1)
        await asyncio.to_thread(thread.set, f"{tag}t", 1)
    thread.connection_pool.disconnect()


async def test_a_thread_finds_each_node(cluster: Cluster) -> None:
    names = keys_on_all_nodes()
    thread = blocking_redis_client(cluster.url)
    for name in names:
        await asyncio.to_thread(thread.set, name, 1)
    cluster.move_at_once(names[0])
    assert await asyncio.to_thread(thread.get, names[0]) == b"1"
    thread.close()


async def test_one_host_of_the_url_that_answers_is_enough(cluster: Cluster) -> None:
    with closed_port() as port:
        async with redis_client(f"redis+cluster://127.0.0.1:{port},127.0.0.1:{cluster.ports[1]}") as redis:
            assert isinstance(redis, ClusterRedis)
            assert await redis.set("x", 1)
            assert len(await redis.primaries()) == 3


async def test_without_any_node_nothing_was_sent() -> None:
    with closed_port() as port:
        for key in (None, "x"):
            async with redis_client(f"redis+cluster://127.0.0.1:{port}", key=key) as redis:
                with pytest.raises(NotConnected) as error:
                    await redis.set("x", 1)
                assert isinstance(handover_error(error.value), CannotAccept)
