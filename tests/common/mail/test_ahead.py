"""Envelopes sent ahead: with PIPELINING alone, an email on a busy session takes one round trip."""

import re
from collections.abc import AsyncIterator

import pytest

from common.mail.errors import InDoubt, Refused, SendError
from common.mail.mailer import Mailer
from common.mail.smtp_conversation import Limits
from tests.support.ahead import a_mailer, copies, send_all
from tests.support.smtp_peer import DATA_REFUSALS, ENVELOPE_REFUSALS, SmtpPeer, an_email, smtp_peer

LATENCY = 0.05  # seconds


@pytest.fixture
async def mailer(peer: SmtpPeer) -> AsyncIterator[Mailer]:
    """It has one session, which may send envelopes ahead when it has sent an email."""
    async with a_mailer(peer) as mailer:
        yield mailer


async def test_an_email_takes_one_round_trip_if_another_waits(peer: SmtpPeer, mailer: Mailer) -> None:
    await mailer.send(an_email())
    reads, peer.latency = peer.reads, LATENCY  # so that what the client sends at once is in one read
    emails = [an_email(f"bob{number}@example.com") for number in range(20)]
    assert await send_all(mailer, *emails) == [None] * 20
    assert peer.reads - reads == 20 + 1
    assert [copies(peer, email) for email in emails] == [1] * 20
    assert peer.connections == 1


async def test_each_message_goes_to_its_own_recipient(peer: SmtpPeer, mailer: Mailer) -> None:
    emails = [
        an_email(f"bob{number}@example.com", f".\n{number}\n.\nMAIL FROM:<eve@example.com>") for number in range(9)
    ]
    await mailer.send(an_email())
    await send_all(mailer, *emails)
    found = re.findall(rb"RCPT TO:<(\S+)>\r\nDATA\r\n.*?\r\nTo: (\S+)\r\n", peer.raw, re.DOTALL)
    assert found[1:] == [(email.to.encode(), email.to.encode()) for email in emails]
    assert len(peer.messages) == 10


async def test_no_envelope_goes_ahead_if_none_waits_or_a_session_is_free(peer: SmtpPeer) -> None:
    async with a_mailer(peer, sessions=5) as mailer:
        await send_all(mailer, *[an_email() for _ in range(5)])
        for _ in range(3):
            await send_all(mailer, *[an_email() for _ in range(5)])
    assert peer.sent_ahead == 0


@pytest.mark.parametrize("data_after_refusal", [True, False])
@pytest.mark.parametrize(("command", "reply", "error"), [*ENVELOPE_REFUSALS, *DATA_REFUSALS])
async def test_a_refusal_concerns_one_email_and_tells_who_can_act(
    command: str, reply: bytes, error: type[SendError], data_after_refusal: bool
) -> None:
    """The sixth email is refused, in its old session and then in a new one. Its envelope was sent ahead."""
    async with smtp_peer(data_after_refusal=data_after_refusal) as peer, a_mailer(peer) as mailer:
        await mailer.send(an_email())
        await send_all(mailer, an_email(), an_email(), an_email())
        peer.at[(command, 6)] = reply
        if command in ("MAIL", "DATA") or reply.startswith(b"421"):
            peer.at[(command, 7)] = reply
        emails = [an_email(), an_email(), an_email()]
        results = await send_all(mailer, *emails)
        assert [type(result) for result in results if result and not isinstance(result, error)] == []
        assert [result is None for result in results] == [True, False, True]
        assert str(results[1]).endswith(reply.decode())
        assert not isinstance(results[1], InDoubt)
        assert [copies(peer, email) for email in emails] == [1, 0, 1]
        assert mailer.failed == 1


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA", "."])
@pytest.mark.parametrize("reply", [b"421 going down", b""])
async def test_a_session_that_ends_leaves_in_doubt_only_a_message_that_is_handed_in(
    peer: SmtpPeer, mailer: Mailer, command: str, reply: bytes
) -> None:
    """It ends at the third envelope, which was sent ahead with the second message, or at the answer to that message."""
    await mailer.send(an_email())
    peer.at[(command, 2 if command == "." else 3)] = reply
    emails = [an_email() for _ in range(4)]
    results = await send_all(mailer, *emails)
    if command == "." and reply == b"":
        assert [type(result) for result in results] == [InDoubt, type(None), type(None), type(None)]
    else:
        assert results == [None] * 4
    assert [copies(peer, email) for email in emails if results[emails.index(email)] is None].count(1) == results.count(
        None
    )
    assert len(peer.messages) == 1 + results.count(None)
    assert peer.connections == 2


@pytest.mark.parametrize("ahead", ["drop", "cut", "cut before", "refuse", "refuse the message"])
async def test_a_server_that_fails_at_it_is_remembered_and_takes_each_email_once(
    ahead: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Limits, "ahead", 0.3)
    async with smtp_peer(ahead=ahead) as peer, a_mailer(peer, sessions=3) as mailer:
        await send_all(mailer, *[an_email() for _ in range(3)])
        emails = [an_email() for _ in range(30)]
        results = await send_all(mailer, *emails)
        in_doubt = [type(result) for result in results if result]
        assert in_doubt == ([InDoubt] if ahead == "cut before" else [])
        assert [copies(peer, email) for email in emails].count(1) == results.count(None)
        assert len(peer.messages) == 3 + results.count(None)
        assert peer.sent_ahead == 1, "one envelope is on trial, and the others wait for its result"
        assert caplog.text.count("failed when an envelope was sent ahead") == 1
        await send_all(mailer, *[an_email() for _ in range(10)])
        assert peer.sent_ahead == 1


async def test_a_refused_email_on_trial_does_not_count_against_the_server(
    peer: SmtpPeer, mailer: Mailer, caplog: pytest.LogCaptureFixture
) -> None:
    """The message is spam in the old session and in the new one."""
    await mailer.send(an_email())
    peer.at |= {(".", 2): b"554 spam", (".", 3): b"554 spam"}
    results = await send_all(mailer, *[an_email() for _ in range(20)])
    assert [type(result) for result in results if result] == [Refused]
    assert "was sent ahead" not in caplog.text
    assert peer.sent_ahead > 10


async def test_a_session_that_breaks_after_a_success_does_not_count_against_the_server(
    peer: SmtpPeer, mailer: Mailer, caplog: pytest.LogCaptureFixture
) -> None:
    await mailer.send(an_email())
    await send_all(mailer, *[an_email() for _ in range(5)])
    peer.at[("MAIL", 9)] = b""
    before = peer.sent_ahead
    assert await send_all(mailer, *[an_email() for _ in range(20)]) == [None] * 20
    assert "was sent ahead" not in caplog.text
    assert peer.sent_ahead - before > 10
