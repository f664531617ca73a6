"""How often a login that fails is tried: soon after it works again emails go out, and no account is locked."""

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest

from common.mail.errors import LoginFailed
from common.mail.logins import JITTER, PAUSES_SECONDS, PUT_OFF_SECONDS, Logins, login_file
from common.mail.mailer import Mailer
from common.mail.sender import PROBE_CAP_SECONDS, PatientSender
from tests.support.programs import until
from tests.support.smtp_peer import SmtpPeer, an_email, settings, smtp_peer

LOCKED_AFTER = 5  # failed logins within an hour


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


def test_a_login_that_fails_is_tried_soon_and_then_seldom() -> None:
    clock = Clock()
    found = tries(Logins(clock=clock), clock, 86_400, refused())
    assert found[2] <= 20, "the password may work again within seconds"
    for window in (900, 1800, 3600):
        assert max(sum(start <= at < start + window for at in found) for start in found) < LOCKED_AFTER
    assert len(found) > 20, "it never gives up"


def test_after_a_454_the_next_try_comes_a_minute_later() -> None:
    clock = Clock()
    found = tries(Logins(clock=clock), clock, 86_400, refused(put_off=True))
    assert min(later - earlier for earlier, later in pairwise(found)) >= PUT_OFF_SECONDS


def test_a_login_that_succeeded_ends_the_pauses(tmp_path: Path) -> None:
    for file in (None, tmp_path / "login.json"):
        clock = Clock()
        logins = Logins(file, clock)
        tries(logins, clock, 600, refused())
        logins.succeeded()
        assert tries(logins, clock, clock.now + 9, refused())[1:] != []


def test_all_processes_of_a_machine_count_together(tmp_path: Path) -> None:
    clock, file = Clock(), tmp_path / "login.json"
    processes = [Logins(file, clock) for _ in range(3)]
    found = []
    while clock.now < 1800:
        for logins in processes:
            found += tries(logins, clock, clock.now + 1, refused())
    assert len(found) < LOCKED_AFTER
    assert tries(Logins(file, clock), clock, clock.now + 1, refused()), "a process that has just started tries at once"
    processes[0].succeeded()
    assert tries(processes[1], clock, clock.now + 1, refused()), "and all try when one has logged in"
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_used_is_ignored(tmp_path: Path) -> None:
    clock, file = Clock(), tmp_path / "login.json"
    for content in ("", "[]", "{}", '{"count": 1}'):
        file.write_text(content)
        assert len(tries(Logins(file, clock), clock, clock.now + 3, refused())) == 1
    unwritable = tmp_path / "file" / "below"
    unwritable.parent.write_text("")
    assert len(tries(Logins(unwritable, clock), clock, clock.now + 3, refused())) == 1


def test_a_pause_from_a_clock_that_was_ahead_does_not_count(tmp_path: Path) -> None:
    clock, file = Clock(), tmp_path / "login.json"
    clock.now = 7200.0
    logins = Logins(file, clock)
    tries(logins, clock, 7300.0, refused())
    clock.now = 0.0
    assert tries(logins, clock, 9.0, refused())


def test_refusals_of_long_ago_do_not_count(tmp_path: Path) -> None:
    clock, file = Clock(), tmp_path / "login.json"
    tries(Logins(file, clock), clock, 100.0, refused())
    clock.now += 86_400
    later = clock.now
    assert len(tries(Logins(file, clock), clock, later + 20, refused())) == 3


def test_the_name_of_the_file_depends_on_the_whole_login(tmp_path: Path) -> None:
    urls = [f"smtp://{user}@127.0.0.1:{port}" for user in ("jo:a", "jo:b", "al:a") for port in (25, 26)]
    files = {login_file(settings(smtp_url=url, data_dir=tmp_path)) for url in urls}
    assert len(files) == len(urls)
    assert login_file(settings(smtp_url="smtp://127.0.0.1:25", data_dir=tmp_path)) is None


def test_a_worker_sends_a_few_seconds_after_the_password_works() -> None:
    assert PAUSES_SECONDS[0] * JITTER + PROBE_CAP_SECONDS <= 7


async def one_email(mailer: Mailer, sender: PatientSender) -> None:
    await sender.send(an_email())


def mailer_with_login(peer: SmtpPeer, data_dir: Path) -> Mailer:
    return Mailer(settings(smtp_url=f"smtp://jo:secret@127.0.0.1:{peer.port}", data_dir=data_dir), patient=True)


async def test_a_login_that_stops_working_is_tried_once_however_many_emails_wait(tmp_path: Path) -> None:
    async with smtp_peer(extensions=["PIPELINING", "AUTH PLAIN LOGIN"]) as peer:
        peer.replies["AUTH"] = b"235 welcome"
        async with mailer_with_login(peer, tmp_path) as mailer:
            await asyncio.gather(*[mailer.send(an_email()) for _ in range(10)])
            peer.replies["AUTH"] = b"535 no"
            peer.drop_connections()
            before = peer.commands.count("AUTH")
            found = await asyncio.gather(*[mailer.send(an_email()) for _ in range(10)], return_exceptions=True)
    assert [type(error) for error in found] == [LoginFailed] * 10
    assert peer.commands.count("AUTH") == before + 1


async def test_a_paused_worker_asks_the_mailer_often_and_the_server_seldom(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("common.mail.sender.backoff_seconds", lambda attempt, base, cap: 0.001)
    async with smtp_peer(extensions=["PIPELINING", "AUTH PLAIN LOGIN"]) as peer:
        peer.replies["AUTH"] = b"535 5.7.8 bad credentials"
        async with mailer_with_login(peer, tmp_path) as mailer:
            sender = PatientSender(mailer, None)
            sending = asyncio.create_task(one_email(mailer, sender))
            await until(lambda: sender._failures > 50)
            assert peer.commands.count("AUTH") == 1
            assert "535" in str(sender.paused)
            assert "535" in str(mailer.login_failed)
            peer.replies["AUTH"] = b"235 2.7.0 welcome"
            mailer._pool._logins._tried = False  # as if its pause was over
            await sending
            assert (sender.paused, mailer.login_failed) == (None, None)
