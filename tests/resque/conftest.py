"""A namespace of its own for each test, and what the tests of one part of the queue share."""

from collections.abc import AsyncIterator, Iterator

import pytest

from asynckit.redis_client import redis_client
from resque import open_connections
from resque.failed import FailedList
from resque.keys import Keys
from tests.support.clockwork import Clockwork
from tests.support.dashboard import Site, site_of
from tests.support.failed import Failures
from tests.support.node_peer import NodeResque, running_node_resque, why_not
from tests.support.programs import a_name
from tests.support.resque import Jobs, Resque, a_resque
from tests.support.servers import Valkey
from tests.support.shared_redis import Shared
from tests.support.ward import Ward, ward_of


@pytest.fixture
async def r(valkey: Valkey) -> AsyncIterator[Resque]:
    async with a_resque(valkey) as r:
        yield r


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


@pytest.fixture
async def failures(valkey: Valkey) -> AsyncIterator[Failures]:
    async with redis_client(valkey.url) as redis:
        keys = Keys(a_name())
        yield Failures(redis, keys, FailedList(redis, keys))


@pytest.fixture
async def ward(valkey: Valkey) -> AsyncIterator[Ward]:
    async with ward_of(valkey, a_name()) as ward:
        yield ward


@pytest.fixture
async def clockwork(valkey: Valkey) -> AsyncIterator[Clockwork]:
    async with redis_client(valkey.url) as redis:
        clockwork = Clockwork(redis, valkey)
        await clockwork.lead()
        yield clockwork


@pytest.fixture
async def site(valkey: Valkey) -> AsyncIterator[Site]:
    async with site_of(valkey.url) as site:
        site.redis.flushall()
        yield site


@pytest.fixture(scope="module")
def peer(valkey: Valkey) -> Iterator[NodeResque]:
    if reason := why_not():
        pytest.skip(f"without node-resque: {reason}")
    with running_node_resque(valkey.port) as peer:
        yield peer


@pytest.fixture
async def shared(valkey: Valkey, peer: NodeResque) -> AsyncIterator[Shared]:
    async with open_connections(valkey.url) as connections:
        shared = Shared(valkey, connections)
        shared.peer = peer
        yield shared
        await shared.node("peer", "endAll")
        assert await shared.node("peer", "errors") == [], "node-resque reported an error"
