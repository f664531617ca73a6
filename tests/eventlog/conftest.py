"""An empty log of each engine. A module with `ENGINES` tests only these."""

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from redis.asyncio import Redis

from asynckit.redis_client import redis_client
from eventlog import partitions, scripts, streams
from eventlog.jetstream import JetStreamLog
from tests.support.event_log import LEASE
from tests.support.programs import a_name
from tests.support.servers import NatsServer, Valkey, running_nats

IN_REDIS_ONLY = {
    "test_only_the_holder_of_the_lease_can_commit": "JetStream has no fencing token",
    "test_a_process_that_claims_its_own_event_again_does_not_count_an_attempt": "JetStream counts each delivery",
    "test_claims_whose_answers_are_lost_are_repeated_at_once_and_not_counted": "the same",
    "test_an_append_whose_answer_was_lost_can_be_repeated": "test_jetstream.py has its own",
    "test_commits_and_retries_are_counted_a_moment_later": "JetStream counts at once, and no retries",
    "test_events_that_are_left_in_the_other_log_are_logged_at_the_start": "only two logs of one Redis know each other",
    "test_a_trim_deletes_only_events_that_every_consumer_has_handled": "JetStream trims the last event too",
    "test_an_overtaken_consumer_logs_and_counts_how_many_events_it_has_lost": "the process that trims says so",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test that does not use Redis itself runs on JetStream too."""
    given = {mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")}
    if "engine" in metafunc.fixturenames and "engine" not in given:
        test = metafunc.function
        in_redis = "valkey" in inspect.signature(test).parameters or test.__name__ in IN_REDIS_ONLY
        engines = ["lua", "streams"] if in_redis else ["lua", "streams", "jetstream"]
        metafunc.parametrize("engine", getattr(metafunc.module, "ENGINES", engines))


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with running_nats(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
async def new_log(request: pytest.FixtureRequest, engine: str) -> AsyncIterator[Callable[..., Any]]:
    """Each call opens the same log as another process would. The log is empty at first."""
    async with AsyncExitStack() as stack:
        if engine == "jetstream":
            url, name = request.getfixturevalue("nats").url, f"test-{a_name()}"

            async def open_jetstream(lease: float = LEASE, **_: Any) -> Any:
                return await stack.enter_async_context(JetStreamLog(url, lease, name))

            yield open_jetstream
            return
        valkey: Valkey = request.getfixturevalue("valkey")
        valkey.client.flushall()

        async def open_log(lease: float = LEASE, **more: Any) -> Any:
            redis = await stack.enter_async_context(redis_client(valkey.url))
            if engine == "streams":
                return await stack.enter_async_context(streams.StreamLog(redis, lease))
            log = partitions.PartitionedLog(redis, lease, **({"partition_events": 10} | more))
            return await stack.enter_async_context(log)

        yield open_log


@pytest.fixture
async def log(new_log: Any) -> Any:
    return await new_log()


@pytest.fixture
async def redis(valkey: Valkey) -> AsyncIterator[Redis]:
    """A client of an empty Redis."""
    valkey.client.flushall()
    async with redis_client(valkey.url) as redis:
        yield redis


@pytest.fixture
def clock(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Returns a function that sets the clock of the scripts N seconds ahead of the real time."""
    ours = """(function()
        local time = redis.call('TIME')
        return {time[1] + (redis.call('GET', 'test:clock') or 0), time[2]}
    end)()"""
    true_source = scripts.source
    monkeypatch.setattr(
        scripts, "source", lambda *name: true_source(*name).replace(b"redis.call('TIME')", ours.encode())
    )

    def set_clock(seconds: float) -> None:
        valkey.client.set("test:clock", int(seconds))

    return set_clock
