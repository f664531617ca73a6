"""`python -m 6_event_bus.consumers`: list the consumers of the log, and remove one whose handler is gone."""

import os
import subprocess
import sys
from typing import Literal

import pytest
from redis.asyncio import Redis

from asynckit.redis_client import redis_client
from common.processes.chapter import chapter_module
from common.settings import Settings
from eventlog.events import Event
from tests.support.programs import LIMIT, ROOT, a_name
from tests.support.servers import Valkey

pytestmark = pytest.mark.usefixtures("clean")


LogName = Literal["lua", "streams"]

logs = chapter_module("6_event_bus.logs")


def consumers(log: str, url: str, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "6_event_bus.consumers", *words]
    environment = os.environ | {"REDIS_URL": url, "LOG": log}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT)


async def have_consumers(redis: Redis, log_name: LogName) -> None:
    """An event in the log, which `audit` has done and `newcomers` has claimed."""
    async with logs.make_log(Settings(log=log_name), redis) as log:
        await log.append(Event(f"<{a_name()}@example.com>", "email_requested", {"to": "a@example.com"}))
        for name in ("audit", "newcomers"):
            [claimed] = await log.claim(name, 10)
            if name == "audit":
                await log.commit(claimed)


@pytest.mark.parametrize("log", ["lua", "streams"])
async def test_a_consumer_whose_handler_is_gone_is_removed(log: LogName, valkey: Valkey) -> None:
    async with redis_client(valkey.url) as redis:
        await have_consumers(redis, log)
    listed = consumers(log, valkey.url)
    audit, newcomers = "audit: 0 waiting, 0 in flight, 0 parked\n", "newcomers: 0 waiting, 1 in flight, 0 parked\n"
    assert (listed.returncode, listed.stdout) == (0, audit + newcomers)
    removed = consumers(log, valkey.url, "leave", "newcomers")
    assert (removed.returncode, removed.stdout) == (0, f"newcomers is removed\n{audit}")
    assert consumers(log, valkey.url).stdout == audit


async def test_a_consumer_with_invalid_data_is_listed_beside_the_others_and_can_be_removed(valkey: Valkey) -> None:
    async with redis_client(valkey.url) as redis:
        await have_consumers(redis, "lua")
        await redis.sadd("eventlog:consumers", "Not A Name")
        await redis.set("eventlog:cursor:{newcomers}", "not a hash")
    listed = consumers("lua", valkey.url)
    assert (listed.returncode, listed.stderr) == (0, "")
    bad, audit, newcomers = listed.stdout.splitlines()
    assert bad.startswith("Not A Name: ValueError: ")
    assert audit == "audit: 0 waiting, 0 in flight, 0 parked"
    assert newcomers.startswith("newcomers: ResponseError: WRONGTYPE ")
    removed = consumers("lua", valkey.url, "leave", "Not A Name")
    assert removed.stdout.splitlines() == ["Not A Name is removed", audit, newcomers]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "email",
            "email has a handler: first remove it from make_handlers and restart the workers\n",
        ),
        ("nonsense", "there is no consumer nonsense; there are audit, newcomers\n"),
    ],
)
async def test_what_cannot_be_removed_is_one_line(name: str, said: str, valkey: Valkey) -> None:
    async with redis_client(valkey.url) as redis:
        await have_consumers(redis, "lua")
    refused = consumers("lua", valkey.url, "leave", name)
    assert (refused.returncode, refused.stdout, refused.stderr) == (1, "", said)


def test_without_redis_and_with_a_bad_command_it_is_one_line() -> None:
    nowhere = "redis://127.0.0.1:1/0"
    ended = consumers("lua", nowhere)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    assert ended.stderr.startswith("Redis: ")
    ended = consumers("lua", nowhere, "remove", "email")
    assert (ended.returncode, ended.stderr) == (2, "usage: python -m 6_event_bus.consumers [leave NAME]\n")
