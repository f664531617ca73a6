"""The promises of chapter 3."""

import asyncio
import os
import random
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import psutil
import pytest
from yarl import URL

from common.mail.sender import WINDOW
from lab.harness.processes import still_alive
from tests.support.load import Load, account
from tests.support.programs import LIMIT, Strategy, frozen, running_strategy, someone, wait_until
from tests.support.servers import Inbox, running_inbox

KILLS = int(os.environ.get("KILLS", "4"))  # of each of the two; KILLS=25 takes a minute


@pytest.fixture(scope="module")
def trio(inbox: Inbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strategy]:
    settings = {"SMTP_URL": inbox.smtp_url, "DRAIN_SECONDS": "1", "ATTEMPTS": "5"}
    with running_strategy("3_local_messages", tmp_path_factory.mktemp("trio"), **settings) as strategy:
        yield strategy


def answers(strategy: Strategy) -> bool:
    try:
        return strategy.ask("/stats").status == 200
    except OSError:
        return False


def test_the_master_keeps_emails_while_no_worker_can_send_them(trio: Strategy, inbox: Inbox) -> None:
    to, before = someone(), trio.stats()
    inbox.dial(hang_rate=1)
    assert [trio.send(to).status for _ in range(5)] == [202] * 5
    wait_until(lambda: trio.stats()["in_flight"] == 5, "five are in flight in the worker")
    inbox.dial(hang_rate=0)
    trio.kill("email worker")
    inbox.wait_for(to, 5)
    wait_until(lambda: trio.stats()["sent"] == before["sent"] + 5, "the worker has reported that they were sent")
    stats = trio.stats()
    assert (stats["accepted"] - before["accepted"], stats["waiting"], stats["in_flight"]) == (5, 0, 0)
    assert stats["restarts_email_worker"] == before["restarts_email_worker"] + 1
    assert stats["restarts_web_server"] == before["restarts_web_server"]


def test_a_killed_server_is_restarted_and_the_master_still_has_all_emails(trio: Strategy, inbox: Inbox) -> None:
    to, before = someone(), trio.stats()
    inbox.dial(latency_ms=500)
    assert [trio.send(to).status for _ in range(5)] == [202] * 5
    trio.kill("web server")
    wait_until(lambda: answers(trio), "the server is back")
    assert trio.stats()["accepted"] == before["accepted"] + 5
    assert trio.stats()["restarts_web_server"] == before["restarts_web_server"] + 1
    inbox.wait_for(to, 5)


def test_kills_under_load_lose_nothing(tmp_path: Path) -> None:
    """A seed decides when and in which order the server and the worker are killed."""
    chance, victims = random.Random(3), ["web server", "email worker"]
    with running_inbox(tmp_path / "inbox") as inbox:
        inbox.dial(latency_ms=50)
        with running_strategy("3_local_messages", tmp_path, SMTP_URL=inbox.smtp_url) as strategy:
            with Load(strategy, someone(), clients=4) as load:
                for _ in range(KILLS):
                    load.wait_for_more(1 + chance.randrange(20))
                    strategy.kill(*chance.sample(victims, 2))
                    wait_until(lambda: answers(strategy), "the server is back")
            wait_until(lambda: strategy.held() == 0, "no email waits or is in flight")
            stats = strategy.stats()
        found = account(load, inbox)
    assert found.lost == 0
    assert found.accepted > 10 * KILLS
    assert found.duplicated <= KILLS * WINDOW, "what was in flight at each kill of the worker"
    assert found.unexpected <= KILLS * load.clients, "the master has the email, but the answer was lost with the server"
    assert stats["restarts_web_server"] + stats["restarts_email_worker"] == 2 * KILLS
    assert stats["accepted"] == stats["sent"] == found.accepted + found.unexpected


def test_a_worker_finishes_its_sends_after_sigterm_and_starts_no_new_ones(tmp_path: Path) -> None:
    with running_inbox(tmp_path / "inbox") as inbox:
        inbox.dial(latency_ms=300)  # the email has arrived, but its 250 has not
        with running_strategy("3_local_messages", tmp_path, SMTP_URL=inbox.smtp_url) as strategy:
            with Load(strategy, someone(), clients=1) as load:
                for _ in range(2):
                    load.wait_for_more(10)
                    strategy.kill("email worker", number=signal.SIGTERM)
                    worker = strategy.pid("email worker")
                    strategy.program.wait_for_line(rf"^\[email worker @ {worker}\] .* ready to send")
                    load.wait_for_more(5)
            wait_until(lambda: strategy.held() == 0, "no email waits or is in flight")
        found = account(load, inbox)
    assert (found.lost, found.duplicated) == (0, 0)


def test_a_killed_master_loses_its_emails_and_leaves_no_orphans(inbox: Inbox, tmp_path: Path) -> None:
    inbox.dial(hang_rate=1)
    with running_strategy("3_local_messages", tmp_path, SMTP_URL=inbox.smtp_url) as strategy:
        to = someone()
        assert [strategy.send(to).status for _ in range(5)] == [202] * 5
        family = [psutil.Process(strategy.pid(role)) for role in ("web server", "email worker")]
        master = family[0].ppid()
        os.kill(master, signal.SIGKILL)
        assert still_alive(family, LIMIT) == []
        strategy.program.wait_for_line(r"^\[web server @ \d+\] the master has died, and the emails it held are lost")
        strategy.program.wait_for_line(rf"master @ {master} was killed by SIGKILL; starting it again")
        wait_until(lambda: answers(strategy), "a new master and a new server")
        inbox.dial(hang_rate=0)
        later = someone()
        assert strategy.send(later).status == 202
        inbox.wait_for(later)
        assert inbox.messages(to) == []


def test_children_send_their_log_lines_to_the_master(trio: Strategy, inbox: Inbox) -> None:
    to = someone()
    trio.send(to)
    inbox.wait_for(to)
    trio.program.wait_for_line(rf"^\[email worker @ \d+\] \d\d:\d\d:\d\d\.\d+ sent <\S+> to {to} in [\d.]+ ms$")
    assert re.search(r"^\[web server @ \d+\] ", trio.program.output, re.MULTILINE)


def test_a_throttled_worker_sends_one_email_and_the_others_wait(inbox: Inbox, tmp_path: Path) -> None:
    """At one email in 1,000 seconds, the second one is due long after the stop."""
    environment = {"SMTP_URL": inbox.smtp_url, "EMAILS_PER_SECOND": "0.001", "DRAIN_SECONDS": "0.2"}
    with running_strategy("3_local_messages", tmp_path, **environment) as strategy:
        to = someone()
        ids = [strategy.send(to).json["id"] for _ in range(11)]
        inbox.wait_for(to)
        wait_until(lambda: strategy.stats()["sent"] == 1, "the worker has reported it")
        assert strategy.held() == 10
    assert [message["message_id"] for message in inbox.messages(to)] == ids[:1]
    assert lost(strategy, "0.2") == ids[1:]


def lost(strategy: Strategy, seconds: str) -> list[str]:
    """The ids of the emails that the master has logged as lost at its end."""
    pattern = rf"^\[master @ \d+\] \S+ lost (<\S+>): not sent within {seconds} s"
    return re.findall(pattern, strategy.program.output, re.MULTILINE)


def test_a_refused_email_is_given_up_logged_and_counted(trio: Strategy, inbox: Inbox) -> None:
    failed = trio.stats()["failed"]
    inbox.dial(refuse_rate=1, refuse_code=550)
    email_id = trio.send(someone()).json["id"]
    wait_until(lambda: trio.stats()["failed"] == failed + 1, "given up")
    trio.program.wait_for_line(rf"gave up {re.escape(email_id)} after 1 attempt\(s\): Refused: 550")


def test_an_email_with_a_4xx_is_given_up_after_its_attempts(inbox: Inbox, tmp_path: Path) -> None:
    with running_strategy("3_local_messages", tmp_path, SMTP_URL=inbox.smtp_url, ATTEMPTS="2") as strategy:
        inbox.dial(refuse_rate=1, refuse_code=451)
        given_up = strategy.send(someone()).json["id"]
        strategy.program.wait_for_line(rf"gave up {re.escape(given_up)} after 2 attempt\(s\): Unavailable: 451")
        stats = strategy.stats()
        assert (stats["failed"], stats["retried"], stats["accepted"]) == (1, 1, 1)


def test_an_email_with_a_4xx_is_sent_when_a_later_attempt_succeeds(trio: Strategy, inbox: Inbox) -> None:
    to, before = someone(), trio.stats()
    inbox.dial(refuse_rate=1, refuse_code=451)
    trio.send(to)
    wait_until(lambda: trio.stats()["retried"] > before["retried"], "the first attempt has failed")
    inbox.dial(refuse_rate=0)
    inbox.wait_for(to)
    stats = wait_until(lambda: (now := trio.stats())["sent"] == before["sent"] + 1 and now, "sent")
    assert (stats["failed"], stats["accepted"]) == (before["failed"], before["accepted"] + 1)


def test_an_outage_of_the_mail_server_uses_up_no_attempts(tmp_path: Path) -> None:
    """With ATTEMPTS=1, an email would be given up after the first failure that counts."""
    to = someone()
    with running_inbox(tmp_path / "inbox") as inbox:
        ports = {"INBOX_SMTP_PORT": str(inbox.smtp_port), "INBOX_PORT": inbox.url.rpartition(":")[2]}
        environment = {"SMTP_URL": inbox.smtp_url, "ATTEMPTS": "1"}
        with running_strategy("3_local_messages", tmp_path, **environment) as strategy:
            strategy.send(to)
            inbox.wait_for(to)
            os.kill(inbox.pid, signal.SIGKILL)
            assert [strategy.send(to).status for _ in range(20)] == [202] * 20
            wait_until(
                lambda: (strategy.stats()["paused"] or "").startswith("Unreachable"), "the worker waits for the server"
            )
            assert strategy.held() == 20
            assert strategy.ask("/health").status == 200, "an email can be accepted nevertheless"
            with running_inbox(tmp_path / "again", **ports) as back:
                back.wait_for(to, 20)
                stats = wait_until(lambda: strategy.stats()["sent"] == 21 and strategy.stats(), "all sent")
    assert (stats["failed"], stats["retried"], stats["paused"]) == (0, 0, False)
    assert len(re.findall("pause: Unreachable", strategy.program.output)) == 1


async def test_when_the_mail_server_hangs_the_queue_grows_to_its_limit_and_the_answer_is_503(
    inbox: Inbox, tmp_path: Path
) -> None:
    """The limit is 128 MB: about 8,000 emails as long as a URL can be, which are even longer as JSON."""
    path = URL(f"/{someone()}/x/" + '"' * 7900, encoded=True)
    full: list[tuple[int, str, str]] = []
    inbox.dial(hang_rate=1)
    with running_strategy("3_local_messages", tmp_path, SMTP_URL=inbox.smtp_url, DRAIN_SECONDS="0.1") as strategy:

        async def send_until_full(client: aiohttp.ClientSession) -> None:
            while not full:
                async with client.get(path) as answer:
                    if answer.status != 202:
                        body = await answer.json()
                        assert set(body) == {"email", "error"}
                        reason = body["error"]["reason"]
                        full.append((answer.status, answer.headers["Retry-After"], reason))

        async with aiohttp.ClientSession(strategy.url) as client:
            await asyncio.gather(*[send_until_full(client) for _ in range(50)])
        stats = strategy.stats()
        assert {answer[:2] for answer in full} == {(503, "1")}
        assert full[0][2] == f"the queue is full: {stats['accepted']} emails"
        assert stats["waiting"] + stats["in_flight"] == stats["accepted"] > 5000
        assert strategy.ask("/health").status == 503


def test_a_master_that_does_not_answer_means_504_and_the_email_may_be_sent(trio: Strategy, inbox: Inbox) -> None:
    master, to = trio.pid("master"), someone()
    with frozen(master):
        answer = trio.send(to)
    assert answer.status == 504
    assert set(answer.json) == {"email", "id", "error"}
    assert answer.json["error"]["reason"] == "the master did not answer within 5 s: the email may still be sent"
    [message] = inbox.wait_for(to)
    assert message["message_id"] == answer.json["id"]
    wait_until(trio.healthy, "it answers again")


def test_the_stats_show_how_long_the_oldest_email_waits(trio: Strategy, inbox: Inbox) -> None:
    wait_until(lambda: trio.held() == 0, "nothing waits")
    assert trio.stats()["oldest_wait_seconds"] == 0.0
    inbox.dial(hang_rate=1)
    trio.send(someone())
    wait_until(lambda: trio.stats()["oldest_wait_seconds"] > 0.1, "it waits")


def test_sigterm_stops_the_server_first_and_drains_the_worker(inbox: Inbox, tmp_path: Path) -> None:
    to = someone()
    with running_strategy("3_local_messages", tmp_path, SMTP_URL=inbox.smtp_url, EMAILS_PER_SECOND="10") as strategy:
        assert [strategy.send(to).status for _ in range(30)] == [202] * 30
    assert len(inbox.messages(to)) == 30
    assert re.search(r"^\[master @ \d+\] \S+ waiting up to 10 s for \d+ emails", strategy.program.output, re.MULTILINE)


def test_sigterm_of_a_child_restarts_it_without_lost_or_duplicate_emails(inbox: Inbox, tmp_path: Path) -> None:
    inbox.dial(latency_ms=6000)
    to = someone()
    with running_strategy("3_local_messages", tmp_path, SMTP_URL=inbox.smtp_url) as strategy:
        assert [strategy.send(to).status for _ in range(5)] == [202] * 5
        wait_until(lambda: strategy.stats()["in_flight"] == 5, "in flight")
        worker = strategy.pid("email worker")
        os.kill(worker, signal.SIGTERM)
        strategy.program.wait_for_line(rf"the email worker @ {worker} ended with exit status 0; starting it again")
        wait_until(lambda: strategy.stats()["sent"] == 5, "all are sent")
    assert [message["copies"] for message in inbox.messages(to)] == [1] * 5
