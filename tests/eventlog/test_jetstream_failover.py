"""The log on JetStream while a node of a cluster is down: calls that need this node must not delay the others."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from eventlog.errors import LogError
from eventlog.jetstream import JetStreamLog
from eventlog.nats_client import Nats
from tests.support.event_log import append, claim_all, claim_when_due, commit, numbers
from tests.support.programs import a_name, until
from tests.support.servers import NatsServer

LEASE = 0.5


@pytest.fixture
async def log(nats: NatsServer) -> AsyncIterator[Any]:
    async with JetStreamLog(nats.url, LEASE, f"test-{a_name()}") as log:
        yield log


async def test_a_connection_can_be_used_while_it_cannot_be_prepared(nats: NatsServer) -> None:
    calls = 0

    async def prepare(_: Nats) -> None:
        nonlocal calls
        calls += 1
        raise LogError("NATS does not answer in time")

    async with Nats(nats.url, prepare) as connection:
        client = connection.connected()
        await until(lambda: calls > 3, "it is prepared again")
        assert connection.connected() is client
        assert await connection.api("STREAM.NAMES")


async def test_a_consumer_without_a_leader_stays_registered(log: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Registering it again needs the leaders of all streams, and takes longer than electing its own leader."""
    await append(log, 1)
    assert await claim_all(log, "email") == [0]
    registered = dict(log._registered)
    api, asked = log.nats.api, []

    async def without_leader(call: str, **body: Any) -> Any:
        asked.append(call.partition(".test-")[0])
        if call.startswith("CONSUMER.INFO"):
            raise LogError("NATS does not answer in time")
        return await api(call, **body)

    await log._delete("email")  # pulls get the same answer as from a consumer without a leader
    monkeypatch.setattr(log.nats, "api", without_leader)
    assert await log.claim("email", 1) == []
    assert log._registered == registered
    assert asked == ["CONSUMER.INFO"]
    monkeypatch.undo()
    assert await claim_when_due(log, "email"), "it does not exist, so it is created"


async def test_an_event_whose_tries_cannot_be_read_comes_later_and_the_delivery_is_not_an_attempt(
    nats: NatsServer, log: Any
) -> None:
    await append(log, 1)
    async with JetStreamLog(nats.url, LEASE, log.name) as dead:
        assert numbers(await dead.claim("email", 1)) == [0]
    await log._register("email")
    await append(log, 1, 2)
    await log.nats.api(f"STREAM.DELETE.{log._notes.stream}")
    found: list[int] = []

    async def delivered_again() -> bool:
        claimed = await log.claim("email", 10)
        await commit(log, claimed)
        found.extend(numbers(claimed))
        return bool(log._tries._uncounted)

    await until(delivered_again, "the lease of the first event has ended")
    assert found == [1], "the other event does not wait for it"
    await log._notes.create(1)
    [again] = await claim_when_due(log, "email", 1)
    assert (numbers([again]), again.attempts) == ([0], 2)
