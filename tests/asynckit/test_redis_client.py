"""How clients behave when their node has become a replica, and other connection errors."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvloop
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, ConnectionError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

import resque
from asynckit.batcher import NotTried
from asynckit.connections import NotConnected, NotSent
from asynckit.redis_client import blocking_redis_client, redis_client
from common.handover import handover_error
from common.mail.errors import CannotAccept, NoAnswer
from lab.harness.proxy import Proxy, a_proxy
from tests.support.programs import closed_port, until
from tests.support.servers import Valkey, running_valkey


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with running_valkey(tmp_path_factory.mktemp("another")) as another:
        yield another


@asynccontextmanager
async def failing_over(valkey: Valkey, another: Valkey) -> AsyncIterator[tuple[Proxy, Callable[[], None]]]:
    """A name for one node; the call makes the first node a replica and redirects the name to the other node."""
    async with a_proxy(valkey.port) as proxy:

        def fail_over() -> None:
            valkey.client.replicaof("127.0.0.1", str(another.port))
            proxy.lead_to(another.port)

        try:
            yield proxy, fail_over
        finally:
            valkey.client.replicaof("NO", "ONE")
            await until(lambda: proxy.open == 0)


Write = Callable[[], Awaitable[Any]]


def by_pipeline(redis: Redis) -> Write:
    async def write() -> None:
        pipeline = redis.pipeline(transaction=False)
        pipeline.get("x")
        pipeline.set("x", 1)
        pipeline.get("x")
        await pipeline.execute()

    return write


def by_queue(redis: Redis) -> Write:
    """The queue of strategy 5, which keeps one connection for all its scripts."""
    queue = resque.Queue(redis)
    return lambda: queue.enqueue("x", "Email")


WRITES: dict[str, Callable[[Redis], Write]] = {
    "command": lambda redis: lambda: redis.set("x", 1),
    "script": lambda redis: redis.register_script("return redis.call('SET', 'x', 1)"),
    "pipeline": by_pipeline,
    "queue": by_queue,
}


@pytest.mark.parametrize("by", WRITES.values(), ids=WRITES)
async def test_connections_are_replaced_when_their_node_has_become_a_replica(
    valkey: Valkey, another: Valkey, by: Callable[[Redis], Write]
) -> None:
    async with failing_over(valkey, another) as (proxy, fail_over), redis_client(proxy.url) as redis:
        write = by(redis)
        await asyncio.gather(write(), *[redis.ping() for _ in range(5)])
        fail_over()
        with pytest.raises(ReadOnlyError):
            await write()
        another.client.flushall()
        await write()
        assert another.client.dbsize() > 0
        await asyncio.gather(*[redis.set("x", number) for number in range(5)])


async def test_a_thread_replaces_its_connection_to_a_replica(valkey: Valkey, another: Valkey) -> None:
    async with failing_over(valkey, another) as (proxy, fail_over):
        client = blocking_redis_client(proxy.url)
        await asyncio.to_thread(client.set, "x", 1)
        fail_over()
        with pytest.raises(ReadOnlyError):
            await asyncio.to_thread(client.set, "x", 1)
        assert await asyncio.to_thread(client.set, "x", 2)
        assert another.client.get("x") == "2"
        client.connection_pool.disconnect()


def test_the_options_of_the_url_are_kept(tmp_path: Path) -> None:
    for url, kind in (("rediss://127.0.0.1:1/0", "SSL"), (f"unix://{tmp_path}/socket", "UnixDomainSocket")):
        for client in (redis_client(url), blocking_redis_client(url)):
            assert client.connection_pool.connection_class.__name__ == f"{kind}Connection"


@pytest.mark.parametrize("by", WRITES.values(), ids=WRITES)
def test_a_closed_transport_is_a_lost_connection(valkey: Valkey, by: Callable[[Redis], Write]) -> None:
    """uvloop, on which the programs run, raises RuntimeError, but callers handle RedisError."""

    async def main() -> None:
        async with redis_client(valkey.url) as redis:
            write = by(redis)
            await write()
            close_before_the_next_write(redis)
            with pytest.raises(ConnectionError):
                await write()
            await write()

    uvloop.run(main())


def close_before_the_next_write(redis: Redis) -> None:
    """Close the transports of all connections after the check whether they are usable."""
    pool: Any = redis.connection_pool
    for connection in (*pool._available_connections, *pool._in_use_connections):
        if connection.is_connected:
            connection.check_health = partial(close, connection)  # redis-py calls it before each write


async def close(connection: Any) -> None:
    del connection.check_health
    connection._writer.transport.abort()
    await asyncio.sleep(0.01)  # until uvloop has closed it


async def test_an_error_while_connecting_means_that_nothing_was_sent() -> None:
    with closed_port() as port:
        async with redis_client(f"redis://127.0.0.1:{port}/0") as redis:
            with pytest.raises(NotSent) as caught:
                await redis.ping()
    assert isinstance(caught.value, ConnectionError)


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ([ResponseError("OOM command not allowed")], CannotAccept),
        ([ReadOnlyError("READONLY")], CannotAccept),
        ([AuthenticationError("WRONGPASS")], CannotAccept),
        ([NotConnected("refused")], CannotAccept),
        ([NotTried("after a batch")], CannotAccept),
        ([ConnectionError("lost")], NoAnswer),
        ([RedisTimeoutError("no answer")], NoAnswer),
        ([ConnectionError("lost"), NotConnected("refused")], NoAnswer),
        ([NotConnected("refused"), NotConnected("refused")], CannotAccept),
    ],
)
def test_what_an_error_of_redis_means_for_the_email(errors: list[RedisError], kind: type[Exception]) -> None:
    assert type(handover_error(*errors)) is kind
