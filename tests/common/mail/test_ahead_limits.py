"""Envelopes that are sent ahead: slow servers, emails that are given up, and limits."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from common.mail import places as places_module
from common.mail import smtp_session as session_module
from common.mail.errors import InDoubt, Refused, SendError, SessionLost, TimedOut
from common.mail.mailer import Mailer
from common.services.inbox.faults import Dial
from common.services.inbox.smtp import Handler, SmtpServer
from common.services.inbox.store import Store
from tests.support.ahead import a_mailer, copies, send_all
from tests.support.programs import LIMIT, until
from tests.support.slow_wire import slow_wire
from tests.support.smtp_peer import SmtpPeer, an_email, settings, smtp_peer

LATENCY = 0.05  # seconds

MOST_ROUND_TRIPS = 1.1  # per email on a busy session

SLOW = "slow@example.com"


@pytest.fixture
async def mailer(peer: SmtpPeer) -> AsyncIterator[Mailer]:
    """It has one session, which may send envelopes ahead when it has sent an email."""
    async with a_mailer(peer) as mailer:
        yield mailer


async def test_an_email_does_not_wait_behind_a_slow_answer_if_a_session_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The session of the slow email ends after its answer, because the server still has half an envelope there."""
    monkeypatch.setattr(places_module, "BEHIND_SECONDS", 0.05)
    async with smtp_peer(hold=b"To: " + SLOW.encode()) as peer, a_mailer(peer, sessions=2) as mailer:
        await mailer.send(an_email())
        slow, others = an_email(SLOW), [an_email() for _ in range(2)]
        sending = asyncio.create_task(mailer.send(slow))
        await send_all(mailer, *others)
        assert not sending.done()
        assert peer.sent_ahead == 1
        assert [copies(peer, email) for email in (slow, *others)] == [0, 1, 1]
        peer.held.set()
        async with asyncio.timeout(LIMIT):
            await sending
        assert copies(peer, slow) == 1
        await until(lambda: len(peer.sessions) == 1)


async def test_no_envelope_goes_ahead_while_the_server_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "_QUICK_SECONDS", 0.02)
    async with smtp_peer(pause=0.05) as peer, a_mailer(peer) as mailer:
        await mailer.send(an_email())
        await send_all(mailer, *[an_email() for _ in range(5)])
        assert peer.sent_ahead == 0
        peer.pause = 0.0
        await send_all(mailer, *[an_email() for _ in range(5)])
        assert peer.sent_ahead > 0


@pytest.mark.parametrize("cancelled", ["the email before", "the next email", "both"])
async def test_a_cancelled_send_does_not_affect_the_other_one(peer: SmtpPeer, mailer: Mailer, cancelled: str) -> None:
    """As when a worker stops."""
    await mailer.send(an_email())
    peer.hold = b"To: " + SLOW.encode()
    before, after = an_email(SLOW), an_email()
    sending = [asyncio.create_task(mailer.send(email)) for email in (before, after)]
    await until(lambda: peer.sent_ahead == 1)
    for task in {"the email before": sending[:1], "the next email": sending[1:], "both": sending}[cancelled]:
        task.cancel()
    if cancelled == "the next email":
        await asyncio.wait(sending[1:])
        peer.held.set()
    results = await asyncio.gather(*sending, return_exceptions=True)
    expected = [task is not None for task in results]
    assert (
        expected
        == {"the email before": [True, False], "the next email": [False, True], "both": [True, True]}[cancelled]
    )
    peer.held.set()
    await mailer.send(an_email())
    assert copies(peer, after) == (cancelled == "the email before")
    assert mailer.in_flight == 0
    assert mailer._places._free == 1


async def test_an_impatient_email_gives_up_while_its_envelope_is_ahead(peer: SmtpPeer) -> None:
    """The email before is in doubt; its own message was not sent, so it is not."""
    async with a_mailer(peer, smtp_send_seconds=0.5) as mailer:
        await mailer.send(an_email())
        peer.hold = b"To: " + SLOW.encode()
        before = asyncio.create_task(mailer.send(an_email(SLOW)))
        after = asyncio.create_task(mailer.send(an_email()))
        results = await asyncio.gather(before, after, return_exceptions=True)
        assert isinstance(results[0], InDoubt)
        assert results[1] is None or type(results[1]) is TimedOut
        peer.held.set()
        await mailer.send(an_email())
        assert mailer._places._free == 1


async def test_an_address_that_the_server_cannot_take_is_not_sent_ahead() -> None:
    async with smtp_peer(extensions=["PIPELINING"]) as peer, a_mailer(peer) as mailer:
        await mailer.send(an_email())
        results = await send_all(mailer, an_email(), an_email("jörg@example.com"), an_email())
        assert [type(result) for result in results] == [type(None), Refused, type(None)]
        assert len(peer.messages) == 3


async def test_a_limit_of_messages_per_session_costs_no_email() -> None:
    for command, reply in (("MAIL", b"450 too many"), ("DATA", b"452 too many"), ("MAIL", b"421 too many")):
        limits: dict[str, Any] = {"most_messages": 3, "over_most_messages": (command, reply)}
        async with smtp_peer(**limits) as peer, a_mailer(peer, sessions=2) as mailer:
            emails = [an_email() for _ in range(30)]
            assert await send_all(mailer, *emails) == [None] * 30
            assert [copies(peer, email) for email in emails] == [1] * 30
            assert peer.sent_ahead > 0


async def test_many_emails_and_broken_sessions_lose_no_place(peer: SmtpPeer) -> None:
    async with a_mailer(peer, sessions=4) as mailer:
        for nth in range(10):
            peer.at[("MAIL", 7 * nth + 5)] = b"" if nth % 2 else b"421 bye"
        emails = [an_email() for _ in range(200)]
        results = await send_all(mailer, *emails)
        assert {type(result) for result in results if result} <= {SessionLost}, "a new session may break too"
        assert [copies(peer, email) for email in emails] == [int(result is None) for result in results]
        assert mailer._places._free == 4
        assert not mailer._places._behind


async def test_the_inbox_takes_one_round_trip_too() -> None:
    """aiosmtpd, with 50 ms added to each round trip."""
    store = Store()
    server = SmtpServer(Handler(store, Dial()))
    await server.listen("127.0.0.1", 0)
    try:
        async with slow_wire(server.port, LATENCY) as wire:
            url = f"smtp://127.0.0.1:{wire.port}"
            async with Mailer(settings(smtp_url=url, smtp_sessions=1), patient=True) as mailer:
                await mailer.send(an_email())
                before, emails = wire.round_trips, [an_email() for _ in range(25)]
                assert await send_all(mailer, *emails) == [None] * 25
                assert wire.round_trips - before <= 25 * MOST_ROUND_TRIPS
        assert store.stats()["unique"] == 26
    finally:
        server.close()


@pytest.mark.parametrize("seed", range(5))
async def test_no_email_is_lost_or_sent_twice_whatever_the_server_answers(seed: int) -> None:
    """Refusals, broken sessions and cancelled sends in random places. In the end every place is free again."""
    chance = random.Random(seed)
    replies = (b"", b"421 bye", b"450 later", b"451 later", b"503 order", b"550 no", b"554 no")
    places = [(command, nth) for command in ("MAIL", "RCPT", "DATA", ".") for nth in range(2, 80)]
    async with smtp_peer(data_after_refusal=seed % 2 == 0) as peer, a_mailer(peer, sessions=1 + seed % 4) as mailer:
        peer.at = {place: chance.choice(replies) for place in chance.sample(places, 30)}
        emails = [an_email() for _ in range(80)]
        sending = [asyncio.create_task(mailer.send(email)) for email in emails]
        for task in chance.sample(sending, 8):
            await asyncio.sleep(0.005)
            task.cancel()
        results = await asyncio.gather(*sending, return_exceptions=True)
        peer.at.clear()
        for email, result in zip(emails, results, strict=True):
            if isinstance(result, (InDoubt, asyncio.CancelledError)):
                assert copies(peer, email) <= 1
            else:
                assert isinstance(result, SendError | None)
                assert copies(peer, email) == (result is None), result
        async with asyncio.timeout(LIMIT):
            await asyncio.gather(*[mailer.send(an_email()) for _ in range(10)])
        assert mailer._places._free == 1 + seed % 4
        assert not mailer._places._behind
        assert mailer.in_flight == 0
