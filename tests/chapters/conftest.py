"""The Redis and the RabbitMQ of the strategies that the tests of one chapter start."""

from collections.abc import Iterator

import pytest

from tests.support.rabbitmq import RabbitMq, running_rabbitmq
from tests.support.servers import Valkey, running_valkey


@pytest.fixture
def clean(valkey: Valkey) -> Valkey:
    """The shared Valkey, without data."""
    valkey.client.flushall()
    return valkey


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A Valkey for a strategy that runs as long as the module's tests. No test may flush it."""
    with running_valkey(tmp_path_factory.mktemp("another")) as valkey:
        yield valkey


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMq]:
    with running_rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as rabbitmq:
        yield rabbitmq


@pytest.fixture
def empty(rabbitmq: RabbitMq) -> RabbitMq:
    rabbitmq.empty()
    return rabbitmq
