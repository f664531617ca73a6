"""Parked events on JetStream, and a server that dies."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from eventlog.errors import LogError
from eventlog.jetstream import JetStreamLog
from eventlog.nats_connect import connect_options
from tests.support.event_log import an_event, append, claim_all, claim_when_due, commit
from tests.support.programs import until
from tests.support.servers import running_nats

ENGINES = ["jetstream"]

# Parked events


async def test_of_a_parked_event_that_is_wanted_twice_only_one_comes(log: Any) -> None:
    await append(log, 1)
    [one] = await log.claim("email", 1)
    await log.park(one, "no such mailbox")
    assert await log.unpark("email", one.position) == await log.unpark("email") == 1
    [again] = await claim_when_due(log, "email")
    assert await log.commit(again)
    log._looks.clear()
    assert await log.claim("email", 1) == []
    assert await log.unpark("email", one.position) == 0


async def test_a_parked_event_that_was_discarded_does_not_come(log: Any) -> None:
    await append(log, 2)
    for one in await log.claim("email", 2):
        await log.park(one, "no such mailbox")
    assert await log.unpark("email") == 2
    assert await log.discard("email") == 2
    log._looks.clear()
    assert await log.claim("email", 2) == []
    assert (await log.lag("email")).parked == 0


# A server that dies


async def test_after_the_death_of_the_server_everything_is_there(tmp_path: Path) -> None:
    with running_nats(tmp_path) as server:
        port = server.port
        async with JetStreamLog(server.url, 30.0) as log:
            await append(log, 10)
            claimed = await log.claim("email", 5)
            await commit(log, claimed[:3])
            waiting = asyncio.create_task(log.claim("audit", 10, wait=0.0))
            await waiting
            os.kill(server.pid, signal.SIGKILL)
            with pytest.raises(LogError):
                await log.append(an_event(10))
            with running_nats(tmp_path, NATS_PORT=str(port)):

                async def back() -> bool:
                    try:
                        await log.check()
                    except LogError:
                        return False
                    return True

                await until(back)
                await log.append(an_event(11))
                assert await commit(log, claimed[3:]) == [True] * 2, "their leases go on"
                found = await claim_all(log, "email")
                assert {5, 6, 7, 8, 9, 11} <= {*found} <= {*range(10), 11}


def test_a_login_is_decoded_and_not_left_in_the_url() -> None:
    options = connect_options("tls://jo:a%40b@x:4222, tls://jo:a%40b@y")
    assert (options["user"], options["password"], options["servers"]) == ("jo", "a@b", ["nats://x:4222", "nats://y"])
    assert connect_options("nats://t%2Fx@x")["token"] == "t/x"
