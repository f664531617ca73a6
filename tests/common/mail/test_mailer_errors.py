"""What the mailer says of a mail server that refuses, hangs or is not there, and its check of one."""

import asyncio

import pytest

from common.mail.errors import InDoubt, LoginFailed, Refused, SendError, TimedOut, Unavailable
from common.mail.mailer import Mailer
from tests.support.programs import LIMIT, until
from tests.support.smtp_peer import DATA_REFUSALS, ENVELOPE_REFUSALS, SmtpPeer, an_email, smtp_peer


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize(("command", "reply", "error"), [*ENVELOPE_REFUSALS, *DATA_REFUSALS])
async def test_an_error_tells_who_can_act_and_the_next_email_is_sent(
    command: str, reply: bytes, error: type[SendError], pipelining: bool
) -> None:
    async with smtp_peer(extensions=["PIPELINING"] if pipelining else []) as peer, Mailer(peer.settings()) as mailer:
        await mailer.send(an_email())
        good = peer.replies[command]
        peer.replies[command] = reply
        with pytest.raises(error, match=reply.decode()[:3]):
            await mailer.send(an_email())
        peer.replies[command] = good
        await mailer.send(an_email())
        assert len(peer.messages) == 2
        assert (mailer.sent, mailer.failed) == (2, 1)
        spent = command in ("MAIL", "DATA") and reply.startswith(b"45")
        if spent:
            assert peer.connections == 2, "it may be a limit of messages: a new session is tried"
        elif not reply.startswith(b"421"):
            assert peer.connections == 1, "the session stays open after a refusal"


async def test_a_refused_recipient_does_not_affect_the_next_email(peer: SmtpPeer, mailer: Mailer) -> None:
    """The server refuses the recipient and accepts DATA, as RFC 2920 allows: a lone dot ends the message."""
    peer.replies["RCPT"] = b"550 no such user"
    peer.replies["."] = b"554 no valid recipients"
    with pytest.raises(Refused, match="550"):
        await mailer.send(an_email())
    peer.replies["RCPT"], peer.replies["."] = b"250 ok", b"250 kept"
    await mailer.send(an_email("carol@example.com"))
    assert peer.commands[-6:-4] == [".", "RSET"]
    assert len(peer.messages) == 1
    assert b"To: carol@example.com" in peer.messages[0]


@pytest.mark.parametrize("how", ["cut", "silence"])
async def test_an_email_without_an_answer_to_the_final_dot_is_in_doubt(peer: SmtpPeer, how: str) -> None:
    async with Mailer(peer.settings(smtp_send_seconds=1.5)) as mailer:
        if how == "cut":
            peer.cuts.add(".")
        else:
            peer.replies["."] = b""
        with pytest.raises(InDoubt):
            await mailer.send(an_email())
        assert b"\r\n.\r\n" in peer.raw


@pytest.mark.parametrize("command", ["EHLO", "MAIL", "DATA"])
async def test_a_server_that_is_silent_before_the_final_dot_is_a_timeout(peer: SmtpPeer, command: str) -> None:
    peer.replies[command] = b""
    if command == "EHLO":
        peer._answer = _silence  # type: ignore[method-assign,assignment]
    async with Mailer(peer.settings(smtp_send_seconds=0.3, smtp_connect_seconds=0.2)) as mailer:
        with pytest.raises(TimedOut):
            await mailer.send(an_email())
        assert b"\r\n.\r\n" not in peer.raw


async def _silence(*_: object) -> None:
    pass


async def test_the_wait_for_a_session_has_a_limit_of_its_own(peer: SmtpPeer) -> None:
    peer.replies["."] = b""
    async with Mailer(peer.settings(smtp_send_seconds=1.0, smtp_sessions=1)) as mailer:
        results = await asyncio.gather(*[mailer.send(an_email()) for _ in range(4)], return_exceptions=True)
        assert [type(r) for r in results[:1]] == [InDoubt]
        assert {type(r) for r in results[1:]} <= {InDoubt, TimedOut}
        assert TimedOut in {type(r) for r in results}
        assert b"".join(peer.messages) == b""
        peer.replies["."] = b"250 kept"
        await mailer.send(an_email())
        assert len(peer.messages) == 1


async def test_a_patient_mailer_sends_a_slow_server_everything_once() -> None:
    """Twenty emails over one session take longer than `smtp_send_seconds`."""
    async with smtp_peer(pause=0.1) as peer:
        async with Mailer(peer.settings(smtp_send_seconds=1.5, smtp_sessions=1), patient=True) as mailer:
            await asyncio.gather(*[mailer.send(an_email()) for _ in range(20)])
        assert len(peer.messages) == 20


async def test_a_late_reply_is_never_taken_for_a_reply_to_the_next_email(peer: SmtpPeer) -> None:
    peer.replies["MAIL"] = b""
    async with Mailer(peer.settings(smtp_send_seconds=1.0, smtp_sessions=1)) as mailer:
        with pytest.raises(TimedOut):
            await mailer.send(an_email())
        peer.replies["MAIL"] = b"250 ok"
        await mailer.send(an_email())
        assert peer.connections == 2


async def test_a_port_without_a_server_is_unavailable_at_once() -> None:
    async with smtp_peer() as gone:
        pass
    async with Mailer(gone.settings()) as mailer:
        with pytest.raises(Unavailable):
            await mailer.send(an_email())
        with pytest.raises(Unavailable):
            await mailer.check()


async def test_the_first_send_after_the_server_is_back_succeeds(peer: SmtpPeer, mailer: Mailer) -> None:
    await asyncio.gather(*[mailer.send(an_email()) for _ in range(10)])
    peer.cuts.add("connect")
    peer.drop_connections()
    with pytest.raises(Unavailable):
        await mailer.send(an_email())
    peer.cuts.clear()
    await mailer.send(an_email())
    assert len(peer.messages) == 11


@pytest.mark.parametrize("rubbish", [b"HTTP/1.1 400 Bad Request", b"\xff\xfe\x00", b"25 ok", b"2500 ok"])
async def test_a_server_that_does_not_speak_smtp_is_unavailable(peer: SmtpPeer, mailer: Mailer, rubbish: bytes) -> None:
    await mailer.send(an_email())
    peer.replies["MAIL"] = rubbish
    with pytest.raises(Unavailable):
        await mailer.send(an_email())


async def test_errors_contain_no_control_characters_of_a_reply(peer: SmtpPeer, mailer: Mailer) -> None:
    peer.replies["RCPT"] = b"550 \x1b[2Jgone\x07"
    with pytest.raises(Refused) as caught:
        await mailer.send(an_email())
    assert str(caught.value) == "550 ?[2Jgone?"


async def test_a_cancelled_send_closes_its_session(peer: SmtpPeer, mailer: Mailer) -> None:
    peer.replies["."] = b""
    sending = asyncio.create_task(mailer.send(an_email()))
    await until(lambda: "." in peer.commands)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    peer.replies["."] = b"250 kept"
    await mailer.send(an_email())
    assert peer.connections == 2
    assert mailer.in_flight == 0


async def test_check_sends_mail_as_an_email_would(peer: SmtpPeer, mailer: Mailer) -> None:
    await mailer.check()
    assert peer.commands[-2:] == ["MAIL", "RSET"]
    peer.replies["MAIL"] = b"530 log in first"
    with pytest.raises(LoginFailed):
        await mailer.check()
    peer.replies["MAIL"] = b"421 going down"
    with pytest.raises(Unavailable):
        await mailer.check()


async def test_check_does_not_wait_for_sessions_that_are_in_use() -> None:
    """Neither for busy ones nor for hung ones."""
    async with smtp_peer() as peer, Mailer(peer.settings(smtp_sessions=2), patient=True) as mailer:
        await mailer.send(an_email())
        peer.replies["."] = b""
        sending = [asyncio.create_task(mailer.send(an_email())) for _ in range(4)]
        await until(lambda: peer.commands.count(".") == 3)
        connections = peer.connections
        async with asyncio.timeout(LIMIT):
            await mailer.check()
            assert peer.connections == connections, "an email was sent just now"
            mailer._last_sent -= 60
            await mailer.check()
            assert peer.connections == connections + 1
        for task in sending:
            task.cancel()
        await asyncio.wait(sending)


async def test_a_server_that_greets_late_is_not_unreachable() -> None:
    async with smtp_peer(greeting_pause=0.3) as peer, Mailer(peer.settings(smtp_connect_seconds=0.1)) as mailer:
        await mailer.send(an_email())
        assert len(peer.messages) == 1


@pytest.mark.parametrize("command", ["MAIL", "RSET"])
async def test_check_of_an_impatient_mailer_has_a_limit(peer: SmtpPeer, command: str) -> None:
    peer.replies[command] = b""
    async with Mailer(peer.settings(smtp_send_seconds=0.3)) as mailer, asyncio.timeout(LIMIT):
        with pytest.raises(TimedOut):
            await mailer.check()
        assert not mailer._pool._idle, "a session that still owes an answer is not used again"
