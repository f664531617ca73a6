"""The patient sender: it is throttled, and waits for a mail server that is down without using up attempts."""

import asyncio

import pytest

from common.mail import sender as sender_module
from common.mail.errors import InDoubt, Refused, SendError, Unavailable, Unreachable
from common.mail.mailer import Mailer
from common.mail.sender import PatientSender, window
from tests.support.programs import LIMIT, until
from tests.support.smtp_peer import an_email, smtp_peer
from tests.support.tasks import ignore_first_cancellation


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "backoff_seconds", lambda attempt, base, cap: 0.01)


async def test_an_outage_raises_no_error_and_every_email_is_sent_afterwards(caplog: pytest.LogCaptureFixture) -> None:
    async with smtp_peer() as peer, Mailer(peer.settings()) as mailer:
        peer.cuts.add("connect")
        pauses: list[SendError | None] = []
        sender = PatientSender(mailer, None, pauses.append)
        sending = [asyncio.create_task(sender.send(an_email())) for _ in range(10)]
        await until(lambda: sender.paused)
        await until(lambda: peer.connections > 15)
        assert not any(task.done() for task in sending)
        peer.cuts.clear()
        await asyncio.gather(*sending)
        assert len(peer.messages) == 10
        assert (sender.paused, pauses[-1]) == (None, None)
        assert caplog.text.count("pause: Unreachable") == 1, "one line, however many sends have failed"


async def test_a_server_that_dies_during_a_send_uses_up_no_attempt() -> None:
    async with smtp_peer() as peer, Mailer(peer.settings()) as mailer:
        sender = PatientSender(mailer, None)
        await sender.send(an_email())
        peer.once["MAIL"] = b"421 going down"
        await sender.send(an_email())
        assert len(peer.messages) == 2


@pytest.mark.parametrize(
    ("command", "reply", "error"),
    [("RCPT", b"550 no", Refused), ("RCPT", b"451 later", Unavailable), (".", b"451 later", Unavailable)],
)
async def test_an_error_of_one_email_is_raised_at_once(command: str, reply: bytes, error: type[Exception]) -> None:
    async with smtp_peer() as peer, Mailer(peer.settings()) as mailer:
        peer.replies[command] = reply
        sender = PatientSender(mailer, None)
        with pytest.raises(error):
            await sender.send(an_email())
        assert sender.paused is None


async def test_in_doubt_is_raised_so_that_the_caller_decides() -> None:
    async with smtp_peer() as peer, Mailer(peer.settings()) as mailer:
        peer.cuts.add(".")
        with pytest.raises(InDoubt):
            await PatientSender(mailer, None).send(an_email())


async def test_a_login_that_is_required_but_not_configured_pauses_all_and_uses_up_no_attempt() -> None:
    """Such a server answers NOOP with 250; only its reply to MAIL shows the problem."""
    async with smtp_peer() as peer, Mailer(peer.settings()) as mailer:
        peer.replies["MAIL"] = b"530 log in first"
        sender = PatientSender(mailer, None)
        sending = asyncio.create_task(sender.send(an_email()))
        await until(lambda: sender.paused)
        assert str(sender.paused).startswith("LoginFailed: 530")
        tried = peer.commands.count("RCPT")
        await until(lambda: peer.commands.count("MAIL") > 8)
        assert peer.commands.count("RCPT") == tried, "no email is tried meanwhile"
        assert not sending.done()
        peer.replies["MAIL"] = b"250 ok"
        await sending


async def test_a_login_required_for_one_email_only_is_a_failed_attempt_of_that_email() -> None:
    async with smtp_peer() as peer, Mailer(peer.settings()) as mailer:
        peer.replies["RCPT"] = b"530 log in to send there"
        with pytest.raises(Unavailable, match="530"):
            await PatientSender(mailer, None).send(an_email())


async def test_a_server_that_fails_with_one_email_only_does_not_stop_the_others() -> None:
    """It closes the connection at this recipient, but its checks succeed: the email is at fault."""
    async with smtp_peer() as peer, Mailer(peer.settings()) as mailer:
        peer.cuts.add("RCPT")
        sender = PatientSender(mailer, None)
        with pytest.raises(Unreachable):
            await sender.send(an_email())
        peer.cuts.clear()
        await sender.send(an_email())
        assert len(peer.messages) == 1


async def test_the_throttle_sends_one_email_at_once_and_lets_the_others_wait() -> None:
    async with smtp_peer() as peer, Mailer(peer.settings()) as mailer:
        sender = PatientSender(mailer, 0.001)
        sending = [asyncio.create_task(sender.send(an_email())) for _ in range(21)]
        await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
        assert [task.done() for task in sending] == [True] + [False] * 20
        assert len(peer.messages) == 1
        for task in sending[1:]:
            task.cancel()
        await asyncio.wait(sending)


async def test_the_throttle_lets_one_email_after_the_other_pass() -> None:
    async with smtp_peer() as peer, Mailer(peer.settings()) as mailer:
        sender = PatientSender(mailer, 1000)
        await asyncio.gather(*[sender.send(an_email()) for _ in range(21)])
        assert len(peer.messages) == 21


@pytest.mark.parametrize(("rate", "emails"), [(None, 50), (0.5, 1), (1, 1), (20, 20), (5000, 50)])
def test_a_throttled_worker_has_at_most_the_emails_of_one_second_in_flight(rate: float | None, emails: int) -> None:
    assert window(rate) == emails


async def test_closing_ends_the_probing() -> None:
    async with smtp_peer() as peer, Mailer(peer.settings()) as mailer:
        peer.cuts.add("connect")
        sender = PatientSender(mailer, None)
        sending = asyncio.create_task(sender.send(an_email()))
        await until(lambda: sender.paused)
        await sender.close()
        sending.cancel()
        await asyncio.wait([sending])
    assert all("_wait_for_server" not in repr(task) for task in asyncio.all_tasks())


async def test_closing_ends_even_if_a_cancellation_was_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with smtp_peer() as peer, Mailer(peer.settings()) as mailer:
        probing = []

        async def check() -> None:
            probing.append("one")
            await ignore_first_cancellation()

        monkeypatch.setattr(mailer, "check", check)
        peer.cuts.add("connect")
        sender = PatientSender(mailer, None)
        sending = asyncio.create_task(sender.send(an_email()))
        await until(lambda: probing)
        async with asyncio.timeout(LIMIT):
            await sender.close()
        sending.cancel()
        await asyncio.wait([sending])
