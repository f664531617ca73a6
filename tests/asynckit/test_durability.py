"""Warnings about settings of Redis that could lose data in a crash."""

import logging

import pytest

from asynckit.durability import shortcomings, warn_if_not_durable
from asynckit.redis_client import redis_client
from tests.support.programs import closed_port, wait_until
from tests.support.servers import Valkey


def rewriting(valkey: Valkey) -> bool:
    facts = valkey.client.info("persistence")
    return bool(facts["aof_rewrite_in_progress"] or facts["aof_rewrite_scheduled"])


async def test_the_embedded_valkey_loses_nothing(valkey: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    async with redis_client(valkey.url) as redis:
        assert await shortcomings(redis) == []
        await warn_if_not_durable(redis)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("appendfsync", "everysec", "a power cut loses the last second"),
        ("appendonly", "no", "loses all writes since its last snapshot"),
        ("maxmemory-policy", "allkeys-lru", "discards waiting work"),
    ],
)
async def test_an_unsafe_setting_is_one_log_line(
    valkey: Valkey, caplog: pytest.LogCaptureFixture, setting: str, value: str, reason: str
) -> None:
    before = valkey.client.config_get(setting)[setting]
    valkey.client.config_set(setting, value)
    try:
        async with redis_client(valkey.url) as redis:
            with caplog.at_level(logging.WARNING):
                await warn_if_not_durable(redis)
    finally:
        valkey.client.config_set(setting, str(before))
        wait_until(lambda: not rewriting(valkey), "Valkey is done with its append-only file and can end")
    [record] = caplog.records
    assert reason in record.message


async def test_an_unreachable_redis_is_not_reported_as_hidden_settings(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with closed_port() as port:
        async with redis_client(f"redis://127.0.0.1:{port}/0") as redis:
            await warn_if_not_durable(redis)
    [record] = caplog.records
    assert record.message.startswith(f"cannot reach Redis at 127.0.0.1:{port}: ")
