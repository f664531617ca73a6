"""How clients behave when the node that they talk to has become a replica."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import ReadOnlyError

from common.redis_client import blocking_redis_client, redis_client
from tests.programs import Valkey, running_valkey
from tests.proxy import Proxy, a_proxy
from tests.smtp_peer import until


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with running_valkey(tmp_path_factory.mktemp("another")) as another:
        yield another


@asynccontextmanager
async def failing_over(valkey: Valkey, another: Valkey) -> AsyncIterator[tuple[Proxy, Callable[[], None]]]:
    """A name for one node; the call lets it mean the other one, and that the first is a replica."""
    async with a_proxy(valkey.port) as proxy:

        def fail_over() -> None:
            valkey.client.replicaof("127.0.0.1", str(another.port))
            proxy.lead_to(another.port)

        try:
            yield proxy, fail_over
        finally:
            valkey.client.replicaof("NO", "ONE")
            await until(lambda: proxy.open == 0)


async def by_pipeline(redis: Redis) -> object:
    pipeline = redis.pipeline(transaction=False)
    pipeline.get("x")
    pipeline.set("x", 1)
    pipeline.get("x")
    return await pipeline.execute()


WRITES: dict[str, Callable[[Redis], Awaitable[object]]] = {
    "command": lambda redis: redis.set("x", 1),
    "script": lambda redis: redis.execute_command("EVAL", "return redis.call('SET', KEYS[1], 1)", 1, "x"),  # type: ignore[no-untyped-call]
    "pipeline": by_pipeline,
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_a_connection_that_finds_itself_with_a_replica_is_made_anew(
    valkey: Valkey, another: Valkey, write: Callable[[Redis], Awaitable[Any]]
) -> None:
    async with failing_over(valkey, another) as (proxy, fail_over), redis_client(SecretStr(proxy.url)) as redis:
        await write(redis)
        fail_over()
        with pytest.raises(ReadOnlyError):
            await write(redis)
        another.client.delete("x")
        await write(redis)
        assert another.client.get("x") == "1"


async def test_so_is_one_of_a_thread(valkey: Valkey, another: Valkey) -> None:
    async with failing_over(valkey, another) as (proxy, fail_over):
        client = blocking_redis_client(SecretStr(proxy.url))
        await asyncio.to_thread(client.set, "x", 1)
        fail_over()
        with pytest.raises(ReadOnlyError):
            await asyncio.to_thread(client.set, "x", 1)
        assert await asyncio.to_thread(client.set, "x", 2)
        assert another.client.get("x") == "2"
        client.connection_pool.disconnect()


def test_whatever_the_url_asks_for_is_kept(tmp_path: Path) -> None:
    for url, kind in (("rediss://127.0.0.1:1/0", "SSL"), (f"unix://{tmp_path}/socket", "UnixDomainSocket")):
        for client in (redis_client(SecretStr(url)), blocking_redis_client(SecretStr(url))):
            assert client.connection_pool.connection_class.__name__ == f"{kind}Connection"
