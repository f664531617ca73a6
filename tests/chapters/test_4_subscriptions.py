"""Chapter 4: subscriptions that Redis cuts off or that die, stopping, the throttle, and other terminals."""

import asyncio
import os
import re
import signal
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from asynckit.ids import new_id
from asynckit.redis_client import redis_client
from common.mail.emails import Email
from common.mail.mailer import Mailer
from common.mail.memory_queue import MemoryQueue
from common.processes.chapter import chapter_module
from tests.support.load import Load, account
from tests.support.log_lines import at_most_once_a_second
from tests.support.programs import (
    LIMIT,
    Strategy,
    a_name,
    email_path,
    freeze,
    frozen,
    running_strategy,
    someone,
    until,
    wait_until,
)
from tests.support.remote_messages import a_worker, remote
from tests.support.servers import Inbox, Valkey, running_valkey, valkey_of
from tests.support.smtp_peer import smtp_peer

channel = chapter_module("4_remote_messages.channel")
worker_module = chapter_module("4_remote_messages.worker")


# A subscriber that Redis cuts off, and a subscription that dies.


async def test_a_worker_that_reads_too_slowly_is_cut_off_and_accepted_emails_are_lost(
    inbox: Inbox, tmp_path: Path
) -> None:
    to, last = someone(), someone()
    with (
        running_valkey(tmp_path / "own") as valkey,
        remote(inbox, valkey, tmp_path, DRAIN_SECONDS="10") as strategy,
    ):
        valkey.client.config_set("client-output-buffer-limit", "pubsub 65536 0 0")
        path, accepted = email_path(to, "Hello", "x" * 4000), 0
        worker = strategy.pid("worker")
        freeze(worker)
        async with aiohttp.ClientSession() as session, asyncio.timeout(LIMIT):
            while valkey.subscribers():  # the kernel buffers several megabytes first
                answers = await asyncio.gather(*[session.get(strategy.url + path) for _ in range(50)])
                accepted += sum(answer.status == 202 for answer in answers)
        os.kill(worker, signal.SIGCONT)
        strategy.program.wait_for_line(rf"\[worker @ {worker}\] .* subscribed to emailz again \(1 so far\)")
        assert strategy.send(last).status == 202
        await asyncio.to_thread(inbox.wait_for, last)
    assert "not sent within" not in strategy.program.output
    assert len(inbox.messages(to)) < accepted < 9_000, "accepted, and never sent; the inbox keeps 10,000"


def test_redis_and_its_subscribers_are_back_after_a_kill(inbox: Inbox, tmp_path: Path) -> None:
    """The runner restarts the embedded Valkey."""
    with running_strategy("4_remote_messages", tmp_path, SMTP_URL=inbox.smtp_url) as strategy:
        with Load(strategy, someone()) as load:
            for _ in range(3):
                load.wait_for_more(50)
                kill_and_wait(strategy, valkey_of(tmp_path))
                load.wait_for_more(1)
        assert {202} < set(load.statuses) <= {202, 503, 504}
        settled(strategy, inbox)
        found = account(load, inbox)
        assert found.lost <= 3 * load.clients, "at each kill no more than what was published and not yet read"
        assert (found.duplicated, found.unexpected) == (0, 0)
        synchronous = f"{email_path(someone(), 'Hello', 'x')}?wait=5"
        wait_until(lambda: strategy.ask(synchronous).status == 200, "replies arrive again")
    assert "Traceback" not in strategy.program.output
    at_most_once_a_second(strategy.program.output, "not subscribed")


def kill_and_wait(strategy: Strategy, valkey: Valkey) -> None:
    os.kill(valkey.pid, signal.SIGKILL)
    wait_until(lambda: strategy.ask("/health").status == 503, "the server has noticed")
    wait_until(lambda: is_back(valkey), "Redis is back")
    wait_until(lambda: valkey.subscribers() == 1, "the worker has subscribed again")
    wait_until(strategy.healthy, "the server has noticed that too")


def is_back(valkey: Valkey) -> bool:
    from redis.exceptions import RedisError

    try:
        return bool(valkey.client.ping())
    except RedisError:
        return False


def settled(strategy: Strategy, inbox: Inbox) -> None:
    """Send one more email and wait until it has arrived after all others."""
    to = someone()
    wait_until(lambda: strategy.send(to).status == 202, "the last email is accepted")
    inbox.wait_for(to)


def test_a_redis_that_hangs_means_504_and_a_new_subscription(inbox: Inbox, tmp_path: Path) -> None:
    to = someone()
    with running_valkey(tmp_path) as valkey, remote(inbox, valkey, tmp_path) as strategy:
        with frozen(valkey.pid):
            answer = strategy.send(to)
            assert answer.status == 504
            assert answer.json["id"]
            assert strategy.ask("/health").status == 503
            assert strategy.stats()["workers"] is None
            for role in ("worker", "server"):
                strategy.program.wait_for_line(rf"^\[{role} @ \d+\] .* not subscribed to emailz.*: Redis")
        wait_until(strategy.healthy, "an email can be accepted again")
        later = someone()
        assert strategy.send(later).status == 202
        inbox.wait_for(later)
    at_most_once_a_second(strategy.program.output, "not subscribed")


async def test_a_message_without_an_answer_from_redis_is_not_published_again(valkey: Valkey) -> None:
    """A second PUBLISH would be a second email."""
    lose = True

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", valkey.port)
        while data := await reader.read(1 << 16):
            to_writer.write(data)
            answer = await to_reader.read(1 << 16)
            if lose and b"EVALSHA" in data and not answer.startswith(b"-NOSCRIPT"):
                break
            writer.write(answer)
        writer.close()
        to_writer.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    name = a_name()
    with closing(valkey.listen(name)) as listener:
        async with server, redis_client(url) as redis:
            publisher = channel.Publisher(redis)
            with pytest.raises(RedisConnectionError):
                await publisher.publish(name, b"first")
            lose = False
            assert await publisher.publish(name, b"second") == 1
        assert [listener.get_message(timeout=LIMIT)["data"] for _ in range(2)] == ["first", "second"]


async def test_simultaneous_calls_are_published_in_one_batch_and_in_order(valkey: Valkey) -> None:
    name = a_name()
    before = valkey.client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)
    with closing(valkey.listen(name)) as listener:
        async with redis_client(valkey.url) as redis:
            publisher = channel.Publisher(redis)
            numbers = [publisher.publish(name if n % 2 == 0 else "nobody", str(n).encode()) for n in range(100)]
            assert await asyncio.gather(*numbers) == [1, 0] * 50
        received = [listener.get_message(timeout=LIMIT)["data"] for _ in range(50)]
    assert received == [str(n) for n in range(0, 100, 2)]
    assert valkey.client.info("commandstats")["cmdstat_evalsha"]["calls"] - before <= 2


async def test_emails_beyond_the_worker_s_limit_are_dropped_counted_and_logged(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker_module, "MemoryQueue", partial(MemoryQueue, limit=1))
    emails = [Email(new_id("example.com"), someone(), "Hello", "x") for _ in range(3)]
    async with smtp_peer() as peer, Mailer(peer.settings()) as mailer, redis_client(valkey.url) as redis:
        peer.replies["."] = b""
        worker = worker_module.Worker(peer.settings(drain_seconds=0.1), redis, mailer)
        stopped = asyncio.Event()
        monkeypatch.setattr(worker_module, "stop_requested", lambda: stop_when(stopped))
        running = asyncio.create_task(worker.run())
        await until(lambda: valkey.subscribers() == 1)
        for email in emails:
            valkey.publish(email.to_json())
        await until(lambda: worker.dropped == 2)
        stopped.set()
        await running
    assert re.findall(r"lost (<\S+>) \(1 so far\): the queue is full", caplog.text) == [emails[1].id]
    assert re.findall(r"lost (<\S+>): not sent within 0.1 s", caplog.text) == [emails[0].id]


async def stop_when(event: asyncio.Event) -> str:
    await event.wait()
    return "the test is over"


# Stopping, and the throttle.


def test_sigterm_drains_what_the_worker_holds(inbox: Inbox, valkey: Valkey, tmp_path: Path) -> None:
    to = someone()
    inbox.dial(latency_ms=700)
    with remote(inbox, valkey, tmp_path, DRAIN_SECONDS="10") as strategy:
        assert [strategy.send(to).status for _ in range(5)] == [202] * 5
    assert len(inbox.messages(to)) == 5
    assert "lost" not in strategy.program.output


def test_a_worker_that_is_stopped_under_load_loses_nothing(inbox: Inbox, valkey: Valkey, tmp_path: Path) -> None:
    """It unsubscribes first, and still accepts what was published before Redis has unsubscribed it."""
    with remote(inbox, valkey, tmp_path, ROLE="server") as strategy, Load(strategy, someone()) as load:
        for _ in range(2):
            with a_worker(inbox, tmp_path, REDIS_URL=valkey.url, DRAIN_SECONDS="10"):
                load.wait_for_more(50)
    found = account(load, inbox)
    assert (found.lost, found.duplicated, found.unexpected) == (0, 0, 0)
    assert found.accepted >= 100
    assert 503 in load.statuses, "no worker was subscribed for a moment"


def test_a_throttled_worker_sends_one_email_and_logs_the_ids_of_those_that_have_to_wait_at_its_stop(
    inbox: Inbox, valkey: Valkey, tmp_path: Path
) -> None:
    """At one email in 1,000 seconds, the second one is due long after the stop."""
    to = someone()
    with remote(inbox, valkey, tmp_path, EMAILS_PER_SECOND="0.001", DRAIN_SECONDS="0.2") as strategy:
        ids = [strategy.send(to).json["id"] for _ in range(6)]
        inbox.wait_for(to)
    assert [message["message_id"] for message in inbox.messages(to)] == ids[:1]
    assert re.findall(r"lost (<\S+>): not sent within 0.2 s of the stop", strategy.program.output) == ids[1:]


# Two terminals, or two machines.


def test_server_and_worker_in_two_terminals_find_the_same_valkey(inbox: Inbox, tmp_path: Path) -> None:
    to, later = someone(), someone()
    with ExitStack() as stack:
        own = {"SMTP_URL": inbox.smtp_url, "ROLE": "server"}
        strategy = stack.enter_context(running_strategy("4_remote_messages", tmp_path, **own))
        with a_worker(inbox, tmp_path) as worker:
            assert "listens on" not in worker.output
            wait_until(strategy.healthy, "the server sees the worker")
            assert strategy.send(to).status == 202
            inbox.wait_for(to)
        assert strategy.send(to).status == 503, "the first terminal still has its Valkey, but no worker is subscribed"
        with a_worker(inbox, tmp_path):
            assert strategy.send(later).status == 202
            inbox.wait_for(later)


def test_the_password_of_your_own_redis_is_shown_nowhere(inbox: Inbox, tmp_path: Path) -> None:
    to = someone()
    with running_valkey(tmp_path / "own") as valkey:
        valkey.client.config_set("requirepass", "right-horse")
        url = f"redis://:right-horse@127.0.0.1:{valkey.port}/0"
        with running_strategy("4_remote_messages", tmp_path, SMTP_URL=inbox.smtp_url, REDIS_URL=url) as strategy:
            wait_until(strategy.healthy, "a worker is subscribed")
            assert strategy.send(to).status == 202
            inbox.wait_for(to)
            shown = [strategy.ask(path).text for path in ("/", "/stats", "/metrics", "/health")]
        wrong = {"SMTP_URL": inbox.smtp_url, "REDIS_URL": url.replace("right", "wrong"), "ROLE": "server"}
        with running_strategy("4_remote_messages", tmp_path, **wrong) as refused:
            answer = refused.send(to)
            assert (answer.status, answer.json["error"]["reason"]) == (503, "Redis refuses the login")
            shown += [answer.text, refused.ask("/health").text]
    assert not (tmp_path / "valkey.json").exists(), "no embedded Valkey was started"
    assert "horse" not in strategy.program.output + refused.program.output + "".join(shown)
