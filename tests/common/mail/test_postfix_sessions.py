"""The mailer's sessions with a real Postfix: limits, refusals, and the death of the server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from common.mail.errors import InDoubt, Refused, Unavailable, Unreachable
from common.mail.mailer import Mailer
from tests.support.postfix import LOGIN, UNKNOWN, Postfix, reason_to_skip
from tests.support.postfix_mail import a_mailer, arrived, arrived_all
from tests.support.programs import running_strategy, until, wait_until
from tests.support.smtp_peer import an_email

pytestmark = pytest.mark.skipif(reason_to_skip() is not None, reason=reason_to_skip() or "")


@pytest.fixture
async def mailer(postfix: Postfix) -> AsyncIterator[Mailer]:
    async with a_mailer(postfix.url()) as mailer:
        yield mailer


@pytest.mark.parametrize("service", ["submission", "strict", "strict at the end"])
async def test_many_unknown_recipients_in_a_row_do_not_affect_the_next_email(postfix: Postfix, service: str) -> None:
    """After some errors Postfix ends the session: in the middle of an envelope, or right after its last reply."""
    good = an_email()
    async with a_mailer(postfix.url(service), smtp_sessions=1, smtp_connect_seconds=20, smtp_send_seconds=20) as mailer:
        await mailer.send(an_email())
        for _ in range(25):
            with pytest.raises(Refused, match=r"550 5\.1\.1"):
                await mailer.send(an_email(UNKNOWN))
        await mailer.send(good)
    await arrived(postfix, good)


async def test_unknown_recipients_do_not_slow_down_the_others(postfix: Postfix) -> None:
    """After 10 errors in a session Postfix delays each of its answers, here by 30 s."""
    good = an_email()
    async with a_mailer(postfix.url("slow after errors"), smtp_sessions=1, smtp_send_seconds=5) as mailer:
        for _ in range(12):
            with pytest.raises(Refused, match=r"550 5\.1\.1"):
                await mailer.send(an_email(UNKNOWN))
        await mailer.send(good)
    await arrived(postfix, good)


async def test_many_emails_share_few_sessions(postfix: Postfix) -> None:
    emails = [an_email(text=f"This is number {number}.") for number in range(500)]
    async with a_mailer(postfix.url("counted"), smtp_sessions=5) as mailer:
        await asyncio.gather(*map(mailer.send, emails))
    await arrived_all(postfix, emails)
    await until(lambda: postfix.logged("counted", "connect from") == postfix.logged("counted", "disconnect from") > 0)
    assert postfix.logged("counted", "connect from") <= 5


async def test_many_checks_in_a_row_succeed(postfix: Postfix) -> None:
    """Postfix counts commands without mail as errors from the 101st on, and ends the session after 20 errors."""
    async with a_mailer(postfix.url()) as mailer:
        for _ in range(150):
            await mailer.check()


async def test_the_next_send_works_after_postfix_has_closed_idle_sessions(postfix: Postfix) -> None:
    emails = [an_email() for _ in range(6)]
    async with a_mailer(postfix.url("impatient")) as mailer:
        await asyncio.gather(*map(mailer.send, emails[:3]))
        await until(lambda: postfix.logged("impatient", "timeout after END-OF-MESSAGE") > 0)
        await until(lambda: postfix.logged("impatient", "connect from") == postfix.logged("impatient", "timeout after"))
        for email in emails[3:]:
            await mailer.send(email)
    await arrived_all(postfix, emails)


async def test_a_limit_of_sessions_costs_no_email(postfix: Postfix) -> None:
    """Postfix allows two at a time: the pool shrinks to these, and the other emails wait."""
    emails = [an_email() for _ in range(6)]
    async with a_mailer(postfix.url("crowded")) as mailer:
        await asyncio.gather(*map(mailer.send, emails))
        assert mailer.failed == 0
        assert mailer._places.withheld > 0
    await arrived_all(postfix, emails)


async def test_an_email_above_the_limit_per_minute_is_unavailable(postfix: Postfix) -> None:
    emails = [an_email() for _ in range(3)]
    async with a_mailer(postfix.url("rationed"), smtp_sessions=1) as mailer:
        await mailer.send(emails[0])
        await mailer.send(emails[1])
        with pytest.raises(Unavailable, match=r"450 4\.7\.1 .*too much mail") as caught:
            await mailer.send(emails[2])
    assert not isinstance(caught.value, Unreachable)
    await arrived_all(postfix, emails[:2])


async def test_a_killed_postfix_loses_nothing_and_the_next_send_works(postfix: Postfix, mailer: Mailer) -> None:
    """With sends in flight, all processes of Postfix are killed: the emails with a 250 arrive all the same."""
    emails = [an_email() for _ in range(500)]
    sends = [asyncio.create_task(mailer.send(email)) for email in emails]
    await until(lambda: mailer.sent >= 50)
    postfix.kill()
    results = await asyncio.gather(*sends, return_exceptions=True)
    assert 50 <= results.count(None) < 500
    assert all(isinstance(result, (Unavailable, InDoubt)) for result in results if result is not None)
    with pytest.raises(Unreachable):
        await mailer.send(an_email())
    with pytest.raises(Unreachable):
        await mailer.check()

    postfix.start()
    after = an_email()
    await mailer.send(after)
    await arrived(postfix, after)
    sent = [email for email, result in zip(emails, results, strict=True) if result is None]
    await until(lambda: all(postfix.arrived(email.id) for email in sent))


async def test_the_next_send_works_after_the_sessions_are_killed(postfix: Postfix, mailer: Mailer) -> None:
    before, after = [[an_email() for _ in range(5)] for _ in range(2)]
    await asyncio.gather(*map(mailer.send, before))
    postfix.kill_sessions()
    await asyncio.gather(*map(mailer.send, after))
    await arrived_all(postfix, before + after)


def test_strategy_1_sends_through_postfix(postfix: Postfix, data_dir: Path) -> None:
    with running_strategy("1_foreground", data_dir, SMTP_URL=postfix.url()) as strategy:
        answer = strategy.send("jörg@bücher.example", "Grüße", "Wie geht's?")
        assert (answer.status, answer.json["status"]) == (200, "sent")
        wait_until(lambda: postfix.arrived(answer.json["id"]), "the email arrives")
        refused = strategy.send(UNKNOWN)
        assert refused.status == 502
        assert "550 5.1.1" in refused.json["error"]["reason"]
        assert strategy.stats()["sent"] == 1
        assert strategy.ask("/health").status == 200
    assert "p:/@w" not in strategy.program.output
    assert LOGIN not in strategy.program.output
