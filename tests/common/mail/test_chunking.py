"""CHUNKING (RFC 3030): one round trip for an email on a warm session, and errors told apart as without it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from common.mail.errors import InDoubt, Refused, SendError, Unavailable
from common.mail.mailer import Mailer
from tests.support.programs import until
from tests.support.smtp_peer import CHUNKING, ENVELOPE_REFUSALS, SmtpPeer, an_email, smtp_peer

LATENCY = 0.05  # seconds


@pytest.fixture
async def peer() -> AsyncIterator[SmtpPeer]:
    async with smtp_peer(extensions=CHUNKING, data_after_refusal=False) as peer:
        yield peer


@pytest.fixture
async def mailer(peer: SmtpPeer) -> AsyncIterator[Mailer]:
    """Its one session has taken an email already."""
    async with Mailer(peer.settings(smtp_sessions=1)) as mailer:
        await mailer.send(an_email())
        yield mailer


@pytest.mark.parametrize(
    ("extensions", "round_trips"), [(CHUNKING, 1), (["PIPELINING"], 2), (["CHUNKING"], 4), ([], 4)]
)
async def test_the_extensions_decide_how_many_round_trips_an_email_takes(
    extensions: list[str], round_trips: int
) -> None:
    async with smtp_peer(extensions=extensions) as peer, Mailer(peer.settings()) as mailer:
        await mailer.send(an_email())
        reads, peer.latency = peer.reads, LATENCY  # so that what the client sends at once is in one read
        for _ in range(3):
            await mailer.send(an_email())
        assert peer.reads - reads == 3 * round_trips
        assert (peer.connections, len(peer.messages)) == (1, 4)


async def test_the_first_email_of_a_session_takes_two_round_trips(peer: SmtpPeer) -> None:
    async with Mailer(peer.settings()) as mailer:
        await mailer.check()
        before = peer.reads
        await mailer.send(an_email())
        assert peer.reads - before == 2
    assert peer.commands.count("BDAT") == 1, "the headers alone"


@pytest.mark.parametrize("text", ["", ".", "..\r\n.\r\nQUIT\r\n", "Grüße\n.\n", "x" * 3000, "a\n" * 300_000])
async def test_a_message_arrives_as_it_is(peer: SmtpPeer, mailer: Mailer, text: str) -> None:
    """No dots are doubled; the first email of a session goes in two chunks, the others in one."""
    email = an_email(text=text)
    await mailer.send(email)
    async with Mailer(peer.settings()) as other:
        await other.send(email)
    in_one, in_two = peer.messages[-2:]
    assert without_date(in_one) == without_date(in_two)
    assert in_one.startswith(b"From: ")
    assert in_one.endswith(b"\r\n")
    assert peer.commands.count("BDAT LAST") == 3


def without_date(message: bytes) -> list[bytes]:
    return [line for line in message.split(b"\r\n") if not line.startswith(b"Date: ")]


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("bdat_accepted", [True, False])
@pytest.mark.parametrize(
    ("command", "reply", "error"),
    [
        *ENVELOPE_REFUSALS,
        ("BDAT LAST", b"554 5.7.1 spam", Refused),
        ("BDAT LAST", b"552 5.3.4 too big", Refused),
        ("BDAT LAST", b"451 disk full", Unavailable),
        ("BDAT LAST", b"421 going down", Unavailable),
    ],
)
async def test_an_error_tells_who_can_act_and_the_next_email_is_sent(
    command: str, reply: bytes, error: type[SendError], warm: bool, bdat_accepted: bool
) -> None:
    async with smtp_peer(extensions=CHUNKING, data_after_refusal=bdat_accepted) as peer:
        async with Mailer(peer.settings()) as mailer:
            if warm:
                await mailer.send(an_email())
            good = peer.replies[command]
            peer.replies[command] = reply
            with pytest.raises(error, match=reply.decode()[:3]) as caught:
                await mailer.send(an_email("dave@example.com"))
            assert not isinstance(caught.value, InDoubt)
            peer.replies[command] = good
            await mailer.send(an_email("carol@example.com"))
        assert len(peer.messages) == 1 + warm
        assert b"To: carol@example.com" in peer.messages[-1]
        assert (mailer.sent, mailer.failed) == (1 + warm, 1)
        assert "DATA" not in peer.commands
        spent = warm and command != "RCPT" and reply.startswith(b"45")
        if spent:
            assert peer.connections == 2, "it may be a limit of messages: a new session is tried"
        elif not reply.startswith(b"421"):
            assert peer.connections == 1, "the session stays open after a refusal"
            assert "RSET" in peer.commands


@pytest.mark.parametrize("after", ["BDAT LAST", "RCPT", "MAIL"])
@pytest.mark.parametrize("how", ["cut", "silence"])
async def test_without_an_answer_to_the_message_an_email_is_in_doubt(
    peer: SmtpPeer, mailer: Mailer, after: str, how: str
) -> None:
    """Wherever the answers end: a server may keep its answers back until it has read the whole write."""
    mailer._send_seconds = 0.3
    if how == "cut":
        peer.cuts.add(after)
    else:
        peer.data_after_refusal = True
        peer.replies[after] = b""
        peer.replies["BDAT LAST"] = b""
    with pytest.raises(InDoubt):
        await mailer.send(an_email())
    assert len(peer.messages) == 1, "it is not tried a second time"


@pytest.mark.parametrize("refused", ["MAIL", "RCPT"])
@pytest.mark.parametrize("how", ["cut after it", "cut at BDAT", "rubbish"])
async def test_after_a_refusal_a_broken_connection_leaves_no_doubt(
    peer: SmtpPeer, mailer: Mailer, refused: str, how: str
) -> None:
    peer.data_after_refusal = True
    peer.replies[refused] = b"550 5.7.1 no"
    if how == "cut after it":
        peer.cut_after.add(refused)
    elif how == "cut at BDAT":
        peer.cuts.add("BDAT LAST")
    else:
        peer.replies["BDAT LAST"] = b"rubbish"
    with pytest.raises(Refused, match="550"):
        await mailer.send(an_email())
    assert len(peer.messages) == 1


async def test_after_a_refusal_silence_leaves_no_doubt(peer: SmtpPeer, mailer: Mailer) -> None:
    peer.data_after_refusal = True
    peer.replies |= {"RCPT": b"550 no", "BDAT LAST": b""}
    mailer._send_seconds = 0.3
    with pytest.raises(Unavailable, match="did not take it"):
        await mailer.send(an_email())


async def test_a_patient_mailer_reports_the_refusal_although_the_last_answer_never_comes(peer: SmtpPeer) -> None:
    async with Mailer(peer.settings(smtp_answer_seconds=0.3), patient=True) as mailer:
        await mailer.send(an_email())
        peer.data_after_refusal = True
        peer.replies |= {"RCPT": b"550 no", "BDAT LAST": b""}
        with pytest.raises(Refused, match="550"):
            await mailer.send(an_email())


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "BDAT LAST"])
async def test_a_421_in_the_middle_ends_the_session_and_a_new_one_takes_the_email(
    peer: SmtpPeer, mailer: Mailer, command: str
) -> None:
    peer.once[command] = b"421 4.3.0 going down"
    await mailer.send(an_email())
    assert (peer.connections, len(peer.messages)) == (2, 2)


async def test_a_session_that_ended_before_the_write_is_replaced(peer: SmtpPeer, mailer: Mailer) -> None:
    """The event loop may not have read the end yet when the next email takes the session."""
    peer.drop_connections()
    await asyncio.sleep(0)
    await mailer.send(an_email())
    assert len(peer.messages) == 2


@pytest.mark.parametrize("code", [500, 502, 503, 504])
@pytest.mark.parametrize("refused", [("BDAT", "BDAT LAST"), ("BDAT LAST",)])
@pytest.mark.parametrize("warm", [True, False])
async def test_a_server_that_offers_chunking_and_refuses_it_gets_data(
    code: int, refused: tuple[str, ...], warm: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with smtp_peer(extensions=CHUNKING) as peer, Mailer(peer.settings()) as mailer:
        if warm:
            await mailer.send(an_email())
        peer.replies |= dict.fromkeys(refused, b"%d what?" % code)
        for _ in range(3):
            await mailer.send(an_email())
        assert len(peer.messages) == 3 + warm
        assert mailer.failed == 0
        assert peer.commands.count("DATA") == 3
        tries = peer.commands.count("MAIL") - len(peer.messages)
        assert tries == 1, "the mailer remembers it"
        assert caplog.text.count("offers CHUNKING and refuses BDAT") == 1


async def test_a_text_is_never_taken_for_commands() -> None:
    """A server that does not know BDAT reads the lines of a chunk as commands."""
    attack = "MAIL FROM:<eve@example.com>\nRCPT TO:<eve@example.com>\nDATA\nFrom: eve\n\nspam\n.\nQUIT\n"
    async with smtp_peer(extensions=CHUNKING, knows_bdat=False) as peer, Mailer(peer.settings()) as mailer:
        await asyncio.gather(*[mailer.send(an_email(text=attack)) for _ in range(30)])
        assert len(peer.messages) == 30
        assert all(message.startswith(b"From: workshop@example.com") for message in peer.messages)
        assert b"eve@example.com" not in b"".join(peer.raw.split(b"DATA\r\n")[:1])
        await until(lambda: len(peer.sessions) <= 20)


async def test_many_emails_share_few_sessions(peer: SmtpPeer) -> None:
    emails = [an_email(f"bob{number}@example.com") for number in range(200)]
    async with Mailer(peer.settings(smtp_sessions=3)) as mailer:
        await asyncio.gather(*map(mailer.send, emails))
    assert peer.connections <= 3
    for email in emails:
        assert sum(f"Message-ID: {email.id}\r\n".encode() in message for message in peer.messages) == 1
