"""The promises of chapter 2."""

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import psutil
import pytest

from asynckit.ids import new_id
from common.mail.emails import Email
from common.mail.errors import CannotAccept
from common.mail.mailer import Mailer
from common.processes.chapter import chapter_module
from tests.support.programs import Strategy, ask, email_path, running_strategy, someone, until, wait_until
from tests.support.servers import Inbox, running_inbox
from tests.support.smtp_peer import smtp_peer

tasks_module = chapter_module("2_parallel.tasks")


def an_email() -> Email:
    return Email(new_id("example.com"), someone(), "Hello", "How are you?")


@pytest.fixture(scope="module")
def parallel(inbox: Inbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Strategy]:
    settings = {"SMTP_URL": inbox.smtp_url, "DRAIN_SECONDS": "0.2"}
    with running_strategy("2_parallel", tmp_path_factory.mktemp("parallel"), **settings) as strategy:
        yield strategy


def test_the_answer_does_not_wait_for_the_mail_server(parallel: Strategy, inbox: Inbox) -> None:
    """The mail server does not answer at all, and the caller gets a 202."""
    inbox.dial(hang_rate=1)
    before = parallel.stats()
    assert parallel.send(someone()).status == 202
    stats = parallel.stats()
    assert (stats["in_flight"], stats["sent"]) == (before["in_flight"] + 1, before["sent"])
    inbox.dial(hang_rate=0)
    to = someone()
    assert parallel.send(to).status == 202
    inbox.wait_for(to)
    wait_until(lambda: parallel.stats()["sent"] > before["sent"], "the end of a task")


def test_a_failure_is_only_logged_and_counted(parallel: Strategy, inbox: Inbox) -> None:
    inbox.dial(refuse_rate=1, refuse_code=550)
    failed = parallel.stats()["failed"]
    answer = parallel.send(someone())
    assert answer.status == 202
    wait_until(lambda: parallel.stats()["failed"] == failed + 1, "the failure is counted")
    parallel.program.wait_for_line(rf"not sent {re.escape(answer.json['id'])} .* Refused: 550")
    inbox.dial(refuse_rate=0)
    to = someone()
    assert parallel.send(to).status == 202
    inbox.wait_for(to)


def test_a_killed_server_loses_what_was_in_flight(inbox: Inbox, tmp_path: Path) -> None:
    inbox.dial(latency_ms=0, hang_rate=1)
    with running_strategy("2_parallel", tmp_path, SMTP_URL=inbox.smtp_url) as strategy:
        to = someone()
        assert [strategy.send(to).status for _ in range(10)] == [202] * 10
        strategy.kill("server")
        later = someone()
        wait_until(lambda: answers(strategy.url), "the server is back")
        inbox.dial(hang_rate=0)  # only now: otherwise the inbox would accept what the dead server had already written
        assert strategy.send(later).status == 202
        inbox.wait_for(later)
        assert inbox.messages(to) == [], "ten answers, no email"
        assert strategy.stats()["accepted"] == 1, "the new server knows nothing of the ten"


def answers(url: str) -> bool:
    try:
        return ask(url, "/stats").status == 200
    except OSError:
        return False


def test_sigterm_drains_what_is_in_flight(inbox: Inbox, tmp_path: Path) -> None:
    inbox.dial(latency_ms=700)
    to = someone()
    with running_strategy("2_parallel", tmp_path, SMTP_URL=inbox.smtp_url) as strategy:
        assert [strategy.send(to).status for _ in range(5)] == [202] * 5
    assert len(inbox.messages(to)) == 5


async def test_the_ids_of_emails_not_sent_within_the_limit_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    emails = [an_email() for _ in range(3)]
    async with smtp_peer() as peer, Mailer(peer.settings()) as mailer:
        peer.replies["."] = b""
        async with tasks_module.SendingTasks(mailer, drain_seconds=0.05) as tasks:
            for email in emails:
                tasks.start(email)
            await until(lambda: peer.commands.count(".") == 3)
        assert tasks.in_flight == 0
    assert [e.id for e in emails] == re.findall(r"lost (<\S+>) to", caplog.text)


async def test_beyond_the_limit_an_email_is_not_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks_module, "LIMIT", 2)
    async with smtp_peer() as peer, Mailer(peer.settings()) as mailer, tasks_module.SendingTasks(mailer, 10) as tasks:
        peer.replies["."] = b""
        tasks.start(an_email())
        tasks.start(an_email())
        with pytest.raises(CannotAccept):
            tasks.start(an_email())
        with pytest.raises(CannotAccept):
            tasks.check_room()
        await until(lambda: peer.commands.count(".") == 2)
        peer.drop_connections()
        await until(lambda: tasks.in_flight == 0)
        assert tasks.failed == 2
        peer.replies["."] = b"250 kept"
        tasks.start(an_email())
        await until(lambda: tasks.sent == 1)


async def test_a_bug_in_one_task_is_logged_and_does_not_affect_the_others(caplog: pytest.LogCaptureFixture) -> None:
    async with smtp_peer() as peer, Mailer(peer.settings()) as mailer, tasks_module.SendingTasks(mailer, 10) as tasks:
        tasks.start(Email("<a@b>\r\nBcc: evil@x.com", "bob@example.com", "Hello", "past all checks"))
        tasks.start(an_email())
        await until(lambda: (tasks.sent, tasks.failed) == (1, 1))
    assert "Traceback" in caplog.text


async def test_a_burst_of_10_000_requests_loses_and_duplicates_no_email(tmp_path: Path) -> None:
    """Accepted emails arrive once; the others get a 503 with Retry-After; the memory is limited."""
    with running_inbox(tmp_path / "inbox") as inbox:
        with running_strategy("2_parallel", tmp_path, SMTP_URL=inbox.smtp_url) as strategy:
            server = psutil.Process(strategy.pid())
            before = server.memory_info().rss
            statuses: Counter[int] = Counter()
            path, left = email_path(someone(), "Hello", "x" * 200), iter(range(10_000))

            async def client(session: aiohttp.ClientSession) -> None:
                for _ in left:
                    async with session.get(strategy.url + path) as response:
                        statuses[response.status] += 1
                        assert response.status == 202 or response.headers["Retry-After"] == "1"

            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
                await asyncio.gather(*[client(session) for _ in range(200)])
            await asyncio.to_thread(wait_until, lambda: strategy.stats()["in_flight"] == 0, "the end")
            grown = server.memory_info().rss - before
            stats = strategy.stats()
        kept = ask(inbox.url, "/api/stats").json
    assert set(statuses) <= {202, 503}
    assert statuses.total() == 10_000
    assert kept == {"received": statuses[202], "unique": statuses[202], "duplicates": 0}
    assert (stats["accepted"], stats["sent"], stats["failed"]) == (statuses[202], statuses[202], 0)
    assert grown < 100 * 1024 * 1024, f"{grown} bytes for {tasks_module.LIMIT} in flight"
