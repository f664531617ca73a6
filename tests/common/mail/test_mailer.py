"""The mailer: sessions kept open and shared, few round trips, and errors that say who can act."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from asynckit.ids import new_id
from common.mail import places as places_module
from common.mail import smtp_pool as pool_module
from common.mail.emails import Email
from common.mail.errors import InDoubt, LoginFailed, Refused, SendError, TimedOut, Unavailable
from common.mail.mailer import Mailer
from tests.support.programs import LIMIT, until
from tests.support.smtp_peer import SmtpPeer, settings, smtp_peer


def an_email(to: str = "bob@example.com") -> Email:
    return Email(new_id("example.com"), to, "Hello", "How are you?")


@pytest.fixture
async def peer() -> AsyncIterator[SmtpPeer]:
    async with smtp_peer() as peer:
        yield peer


@pytest.fixture
async def mailer(peer: SmtpPeer) -> AsyncIterator[Mailer]:
    async with Mailer(peer.settings()) as mailer:
        yield mailer


async def test_an_email_takes_two_round_trips_on_a_warm_session_with_pipelining(peer: SmtpPeer, mailer: Mailer) -> None:
    await mailer.send(an_email())
    before = peer.reads
    await mailer.send(an_email())
    assert peer.reads - before == 2
    assert peer.connections == 1


async def test_without_pipelining_the_mailer_sends_one_command_at_a_time() -> None:
    async with smtp_peer(extensions=["8BITMIME"]) as peer, Mailer(peer.settings()) as mailer:
        await mailer.send(an_email())
        before = peer.reads
        await mailer.send(an_email())
        assert peer.reads - before == 4
        assert len(peer.messages) == 2


async def test_the_mailer_says_helo_to_a_server_that_refuses_ehlo(peer: SmtpPeer) -> None:
    peer.cuts.clear()
    peer.replies["HELO"] = b"250 hello"
    peer.extensions = []

    async def no_ehlo(writer: asyncio.StreamWriter, command: str) -> None:
        peer.commands.append(command)
        writer.write((b"502 what?" if command == "EHLO" else peer.replies[command]) + b"\r\n")

    peer._answer = no_ehlo  # type: ignore[method-assign]
    async with Mailer(peer.settings()) as mailer:
        await mailer.send(an_email())
    assert peer.commands[:3] == ["EHLO", "HELO", "MAIL"]


async def test_many_emails_share_few_sessions(peer: SmtpPeer) -> None:
    async with Mailer(peer.settings(smtp_sessions=3)) as mailer:
        await asyncio.gather(*[mailer.send(an_email()) for _ in range(50)])
    assert len(peer.messages) == 50
    assert peer.connections <= 3
    assert mailer.sent == 50


async def test_the_mailer_sends_quit_on_every_session_when_it_closes(peer: SmtpPeer) -> None:
    async with Mailer(peer.settings()) as mailer:
        await mailer.send(an_email())
    await until(lambda: "QUIT" in peer.commands)


async def test_the_mailer_notices_that_the_server_has_closed_its_sessions(peer: SmtpPeer, mailer: Mailer) -> None:
    await asyncio.gather(*[mailer.send(an_email()) for _ in range(5)])
    peer.drop_connections()
    for _ in range(5):
        await mailer.send(an_email())
    assert len(peer.messages) == 10


@pytest.mark.parametrize("how", ["cut at MAIL", "421 at MAIL"])
async def test_a_session_that_ends_at_mail_is_replaced_within_the_same_attempt(
    peer: SmtpPeer, mailer: Mailer, how: str
) -> None:
    """The server has a limit of emails per session or of idle time. It has not taken this email."""
    await mailer.send(an_email())
    peer.once["MAIL"] = b"" if how == "cut at MAIL" else b"421 too many messages on this session"
    await mailer.send(an_email())
    assert peer.connections == 2
    assert len(peer.messages) == 2


async def test_the_mailer_closes_an_idle_session_before_the_server_does(
    peer: SmtpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "IDLE_SECONDS", 0.01)
    async with Mailer(peer.settings()) as mailer:
        await mailer.send(an_email())
        await until(lambda: "QUIT" in peer.commands)
        await mailer.send(an_email())
    assert peer.connections == 2


@pytest.mark.parametrize("pipelining", [True, False])
@pytest.mark.parametrize(
    ("command", "reply", "error"),
    [
        ("MAIL", b"550 not you", Refused),
        ("MAIL", b"451 not now", Unavailable),
        ("MAIL", b"530 5.7.0 log in first", LoginFailed),
        ("RCPT", b"550 5.1.1 no such user", Refused),
        ("RCPT", b"450 busy", Unavailable),
        ("DATA", b"554 no", Refused),
        ("DATA", b"451 no", Unavailable),
        (".", b"554 5.7.1 spam", Refused),
        (".", b"451 disk full", Unavailable),
        (".", b"421 going down", Unavailable),
        ("RCPT", b"421 going down", Unavailable),
    ],
)
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


async def test_the_message_id_is_the_same_in_every_attempt(peer: SmtpPeer, mailer: Mailer) -> None:
    email = an_email()
    await mailer.send(email)
    await mailer.send(email)
    assert [f"Message-ID: {email.id}\r\n".encode() in message for message in peer.messages] == [True, True]


async def test_the_mailer_counts_the_sends_in_flight_and_measures_the_oldest(peer: SmtpPeer, mailer: Mailer) -> None:
    assert (mailer.in_flight, mailer.oldest_seconds) == (0, 0.0)
    peer.replies["."] = b""
    sending = asyncio.create_task(mailer.send(an_email()))
    await until(lambda: "." in peer.commands)
    assert mailer.in_flight == 1
    assert mailer.oldest_seconds > 0
    sending.cancel()
    await asyncio.wait([sending])


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


async def test_a_session_at_its_limit_of_messages_is_replaced(peer: SmtpPeer, mailer: Mailer) -> None:
    """Some servers report their limit with a 4xx to MAIL or DATA and keep the session open."""
    for command, reply in (("MAIL", b"450 4.7.0 too many messages"), ("DATA", b"452 4.4.5 Maximum number of messages")):
        await mailer.send(an_email())
        peer.once[command] = reply
        await mailer.send(an_email())
    assert len(peer.messages) == 4
    assert peer.connections == 3


async def test_every_line_of_a_reply_is_kept(peer: SmtpPeer, mailer: Mailer) -> None:
    peer.replies["RCPT"] = b"550-5.1.1 The account does not exist.\r\n550 5.1.1 https://support.example.com/x"
    with pytest.raises(Refused) as caught:
        await mailer.send(an_email())
    assert str(caught.value) == "550 5.1.1 The account does not exist. https://support.example.com/x"


async def test_the_pool_learns_how_many_sessions_the_server_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    async with smtp_peer(most_sessions=3) as peer, Mailer(peer.settings()) as mailer:
        await asyncio.gather(*[mailer.send(an_email()) for _ in range(100)])
        assert len(peer.messages) == 100
        assert mailer.failed == 0
        assert peer.connections <= 20, "the server refuses each place once"
        refused = peer.connections
        await asyncio.gather(*[mailer.send(an_email()) for _ in range(100)])
        assert peer.connections == refused, "the pool keeps its size"
        monkeypatch.setattr(places_module, "GROW_SECONDS", 0.0)
        peer.most_sessions = 20
        mailer._places.grow()
        await until(lambda: mailer._places.withheld == 0)


async def test_a_server_that_accepts_no_session_at_all_is_unreachable() -> None:
    async with smtp_peer(most_sessions=0) as peer, Mailer(peer.settings()) as mailer:
        results = await asyncio.gather(*[mailer.send(an_email()) for _ in range(5)], return_exceptions=True)
        assert {isinstance(result, Unavailable) for result in results} == {True}
        assert "421" in str(results[0])


@pytest.mark.parametrize(
    ("reply", "cut"), [(b"535 5.7.8 no", False), (b"535 5.7.8 no", True), (b"454 4.7.0 too many login attempts", False)]
)
async def test_all_waiting_emails_share_one_refused_login(reply: bytes, cut: bool) -> None:
    extensions = ["PIPELINING", "AUTH PLAIN LOGIN"]
    async with smtp_peer(extensions=extensions, cut_after={"AUTH"} if cut else set()) as peer:
        peer.replies["AUTH"] = reply
        url = f"smtp://jo:secret@127.0.0.1:{peer.port}"
        async with Mailer(settings(smtp_url=url), patient=True) as mailer:
            results = await asyncio.gather(*[mailer.send(an_email()) for _ in range(30)], return_exceptions=True)
        assert {type(result) for result in results} == {LoginFailed}
        assert reply.decode() in str(results[0])
        assert peer.commands.count("AUTH") == 1


@pytest.mark.parametrize(
    ("command", "limit", "error"),
    [
        ("MAIL", "smtp_command_seconds", TimedOut),
        ("DATA", "smtp_data_seconds", TimedOut),
        (".", "smtp_answer_seconds", InDoubt),
    ],
)
async def test_a_patient_mailer_has_a_limit_for_each_answer(command: str, limit: str, error: type[SendError]) -> None:
    async with smtp_peer(extensions=[]) as peer:
        peer.replies[command] = b""
        async with Mailer(peer.settings(smtp_send_seconds=0.01, **{limit: 0.2}), patient=True) as mailer:
            with pytest.raises(error, match=r"within 0\.2 s"):
                await mailer.send(an_email())


async def test_a_patient_mailer_waits_longer_than_an_impatient_one_for_the_answer() -> None:
    async with smtp_peer(pause=0.3) as peer:
        async with Mailer(peer.settings(smtp_send_seconds=0.1), patient=True) as mailer:
            await mailer.send(an_email())
        assert len(peer.messages) == 1


def test_the_settings_tell_the_mailer_where_to_go() -> None:
    server = settings(smtp_url="smtps://jo%40x:p%2Fw@mail.example.com").smtp
    assert (server.host, server.port, server.tls, server.user, server.password) == (
        "mail.example.com", 465, True, "jo@x", "p/w",
    )  # fmt: skip
