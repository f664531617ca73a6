"""How often a login that fails is tried: soon after it works again emails go out, and no account is locked."""

import asyncio
from itertools import pairwise

import pytest

from asynckit.ids import new_id
from common.mail.emails import Email
from common.mail.errors import LoginFailed
from common.mail.logins import QUICK_SECONDS, QUICK_TRIES, SLOW_SECONDS, Logins
from common.mail.mailer import Mailer
from common.mail.sender import PROBE_CAP_SECONDS, PatientSender
from tests.support.programs import until
from tests.support.smtp_peer import SmtpPeer, settings, smtp_peer


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def tries(logins: Logins, clock: Clock, seconds: float, error: LoginFailed) -> list[float]:
    """When a sender that checks each second tries a login that fails, in seconds."""
    found = []
    while clock.now < seconds:
        try:
            logins.check()
        except LoginFailed:
            pass
        else:
            found.append(clock.now)
            logins.failed(error)
        clock.now += 1.0
    return found


def refused(*, put_off: bool = False) -> LoginFailed:
    error = LoginFailed("no")
    error.put_off = put_off
    return error


def test_the_first_tries_come_soon_and_the_others_once_a_minute() -> None:
    clock = Clock()
    found = tries(Logins(clock), clock, 600, refused())
    pauses = [later - earlier for earlier, later in pairwise(found)]
    assert set(pauses[:QUICK_TRIES]) == {QUICK_SECONDS}
    assert min(pauses[QUICK_TRIES:]) >= SLOW_SECONDS
    assert len(found) <= QUICK_TRIES + 600 / SLOW_SECONDS


def test_after_a_454_the_next_try_comes_a_minute_later() -> None:
    clock = Clock()
    assert len(tries(Logins(clock), clock, 200, refused(put_off=True))) <= 4


def test_a_login_that_succeeded_ends_the_pauses() -> None:
    clock = Clock()
    logins = Logins(clock)
    tries(logins, clock, 600, refused())
    clock.now += 2 * SLOW_SECONDS
    logins.succeeded()
    assert tries(logins, clock, clock.now + 9, refused())[1:] != []


def test_a_worker_sends_a_few_seconds_after_the_password_works() -> None:
    assert QUICK_SECONDS + PROBE_CAP_SECONDS <= 6


async def one_email(mailer: Mailer, sender: PatientSender) -> None:
    await sender.send(Email(new_id("example.com"), "bob@example.com", "Hello", "How are you?"))


def mailer_with_login(peer: SmtpPeer) -> Mailer:
    return Mailer(settings(smtp_url=f"smtp://jo:secret@127.0.0.1:{peer.port}"), patient=True)


async def test_a_paused_worker_asks_the_mailer_often_and_the_server_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.mail.sender.backoff_seconds", lambda attempt, base, cap: 0.001)
    async with smtp_peer(extensions=["PIPELINING", "AUTH PLAIN LOGIN"]) as peer:
        peer.replies["AUTH"] = b"535 5.7.8 bad credentials"
        async with mailer_with_login(peer) as mailer:
            sender = PatientSender(mailer, None)
            sending = asyncio.create_task(one_email(mailer, sender))
            await until(lambda: sender._failures > 50)
            assert peer.commands.count("AUTH") == 1
            assert "535" in str(sender.paused)
            assert "535" in str(mailer.login_failed)
            peer.replies["AUTH"] = b"235 2.7.0 welcome"
            mailer._logins._next = 0.0
            await sending
            assert (sender.paused, mailer.login_failed) == (None, None)
