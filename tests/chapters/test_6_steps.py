"""What each step of chapter 6 loses or repeats, as its docstring says."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from asynckit.redis_client import redis_client
from common.mail.emails import Email
from common.processes.chapter import chapter_module
from common.settings import Settings
from tests.support.programs import Program, a_name, running_strategy, someone, wait_until
from tests.support.servers import Inbox, Valkey

pytestmark = pytest.mark.usefixtures("clean")


talk: Any = chapter_module("6_event_bus.steps.talk")
logs: Any = chapter_module("6_event_bus.logs")
producer: Any = chapter_module("6_event_bus.producer")


@contextmanager
def running_worker(step: str, valkey: Valkey, inbox: Inbox) -> Iterator[Program]:
    settings = {"STEP": step, "LEASE_SECONDS": "1", "DRAIN_SECONDS": "0.2"}
    urls = {"REDIS_URL": valkey.url, "SMTP_URL": inbox.smtp_url}
    program = Program([sys.executable, "-m", "6_event_bus", "worker"], settings | urls)
    try:
        yield program
    finally:
        program.stop()


async def append(step: str, valkey: Valkey, late_seconds: float = 0.0) -> str:
    """Append an event as the web server does in this step, and return the recipient of its email."""
    name = a_name()
    email = Email(f"<{name}@example.com>", f"{name}@example.com", "Hello", "Hi")
    async with redis_client(valkey.url) as redis:
        if step == "group":
            async with logs.make_log(Settings(step="group"), redis) as log:
                await producer.Producer(log).email_requested(email)
        else:
            to_talk = talk.Producer(redis, own_clock=step == "cursor_first")
            await to_talk.append(email.to_json(), time.time() - late_seconds)
    return email.to


async def kill_while_sending(step: str, program: Program, valkey: Valkey, inbox: Inbox) -> str:
    """Kill the worker after it starts to send an email and before the mail server's 250. Returns the recipient."""
    to = await append(step, valkey)
    inbox.wait_for(to)  # the worker is running
    inbox.dial(hang_rate=1)
    before = [state(valkey)]
    to = await append(step, valkey)
    if step == "commit_after":
        program.wait_for_line("sent")  # the log line of the first email
    else:
        wait_until(lambda: state(valkey) != before[0], "the worker has taken the event")
    os.kill(program.process.pid, signal.SIGKILL)
    program.process.wait()
    inbox.dial(hang_rate=0)
    return to


def state(valkey: Valkey) -> object:
    """The cursor, and the pending events of the group."""
    pending = (
        valkey.client.xpending("eventlog:{stream}", "step:email") if valkey.client.exists("eventlog:{stream}") else 0
    )
    return valkey.client.hgetall("talk:cursor"), pending


async def test_cursor_first_loses_the_email_that_its_killed_worker_was_sending(valkey: Valkey, inbox: Inbox) -> None:
    with running_worker("cursor_first", valkey, inbox) as program:
        lost = await kill_while_sending("cursor_first", program, valkey, inbox)
    with running_worker("cursor_first", valkey, inbox):
        inbox.wait_for(await append("cursor_first", valkey))
    assert not inbox.messages(lost)


async def test_cursor_first_skips_the_events_of_a_producer_whose_clock_is_late(valkey: Valkey, inbox: Inbox) -> None:
    with running_worker("cursor_first", valkey, inbox):
        inbox.wait_for(await append("cursor_first", valkey))
        skipped = await append("cursor_first", valkey, late_seconds=120)
        inbox.wait_for(await append("cursor_first", valkey))
    assert not inbox.messages(skipped)


async def test_commit_after_does_not_use_the_producers_clock(valkey: Valkey, inbox: Inbox) -> None:
    with running_worker("commit_after", valkey, inbox):
        for late_seconds in (0.0, 120.0, 0.0):
            inbox.wait_for(await append("commit_after", valkey, late_seconds))


@pytest.mark.parametrize("step", ["commit_after", "group"])
async def test_the_later_steps_lose_nothing(step: str, valkey: Valkey, inbox: Inbox) -> None:
    with running_worker(step, valkey, inbox) as program:
        to = await kill_while_sending(step, program, valkey, inbox)
    with running_worker(step, valkey, inbox):
        wait_until(lambda: inbox.messages(to), "the next worker sends it")


async def test_two_workers_of_commit_after_send_every_email_twice(valkey: Valkey, inbox: Inbox) -> None:
    inbox.dial(latency_ms=300)
    with running_worker("commit_after", valkey, inbox) as one, running_worker("commit_after", valkey, inbox) as two:
        one.wait_for_line("ready")
        two.wait_for_line("ready")
        for _ in range(5):
            to = await append("commit_after", valkey)
            wait_until(lambda to=to: [m["copies"] for m in inbox.messages(to)] == [2], "the email arrives twice")  # type: ignore[misc]


async def test_two_workers_of_a_group_share_the_events(valkey: Valkey, inbox: Inbox) -> None:
    with running_worker("group", valkey, inbox), running_worker("group", valkey, inbox):
        addresses = [await append("group", valkey) for _ in range(20)]
        for to in addresses:
            inbox.wait_for(to)
        wait_until(lambda: valkey.client.xpending("eventlog:{stream}", "step:email")["pending"] == 0, "acknowledged")
    assert [message["copies"] for to in addresses for message in inbox.messages(to)] == [1] * 20


async def test_a_worker_of_a_group_renews_the_lease_of_an_email_that_takes_longer(valkey: Valkey, inbox: Inbox) -> None:
    inbox.dial(latency_ms=6000)
    with running_worker("group", valkey, inbox) as one, running_worker("group", valkey, inbox) as two:
        one.wait_for_line("ready")
        two.wait_for_line("ready")
        to = await append("group", valkey)
        wait_until(
            lambda: valkey.client.xpending("eventlog:{stream}", "step:email")["pending"] == 1, "the event is claimed"
        )
        wait_until(
            lambda: valkey.client.xpending("eventlog:{stream}", "step:email")["pending"] == 0,
            "the event is acknowledged",
        )
    assert [message["copies"] for message in inbox.messages(to)] == [1]


@pytest.mark.parametrize("step", ["commit_after", "group"])  # the two ways to append an event
def test_make_run_6_with_a_step(step: str, inbox: Inbox, tmp_path: Path) -> None:
    with running_strategy("6_event_bus", tmp_path, SMTP_URL=inbox.smtp_url, STEP=step) as strategy:
        to = someone()
        assert strategy.send(to).status == 202
        inbox.wait_for(to)
        stats = strategy.stats()
        assert stats["events"] == 1
        assert stats.get("in_flight") is stats.get("sent") is None
