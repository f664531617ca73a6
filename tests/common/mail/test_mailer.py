"""The mailer's sessions: how many it opens, and how it uses them."""

import asyncio

import pytest

from common.mail import places as places_module
from common.mail import smtp_pool as pool_module
from common.mail.errors import InDoubt, LoginFailed, Refused, SendError, TimedOut, Unavailable
from common.mail.mailer import Mailer
from tests.support.programs import until
from tests.support.smtp_peer import SmtpPeer, an_email, settings, smtp_peer


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
