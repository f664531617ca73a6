"""The mailer and a real Postfix with TLS and login, with the limits and the failures that real mail servers have."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from common.mail.emails import read_address
from common.mail.errors import LoginFailed, Refused
from common.mail.mailer import Mailer
from common.mail.message import build_message
from tests.support.postfix import UNKNOWN, USER, Postfix, reason_to_skip
from tests.support.postfix_mail import a_mailer, arrived, arrived_all
from tests.support.programs import until
from tests.support.slow_wire import slow_wire
from tests.support.smtp_peer import an_email

pytestmark = pytest.mark.skipif(reason_to_skip() is not None, reason=reason_to_skip() or "")

LATENCY = 0.1  # seconds, added to each round trip

SENDER = read_address("workshop@example.com")


@pytest.fixture
async def mailer(postfix: Postfix) -> AsyncIterator[Mailer]:
    async with a_mailer(postfix.url()) as mailer:
        yield mailer


async def test_an_email_takes_one_round_trip_on_a_warm_session(postfix: Postfix) -> None:
    emails = [an_email(text="All work and no play makes Jack a dull boy. " * count) for count in (1, 10, 100, 1, 1)]
    async with slow_wire(postfix.port(), LATENCY) as wire:
        url = postfix.url().replace(f":{postfix.port()}", f":{wire.port}")
        async with a_mailer(url, smtp_sessions=1) as mailer:
            await mailer.send(emails[0])
            before = wire.round_trips
            for email in emails[1:]:
                await mailer.send(email)
            assert wire.round_trips - before == len(emails[1:])
    await arrived_all(postfix, emails)


async def test_without_chunking_an_email_takes_one_round_trip_if_another_waits(postfix: Postfix) -> None:
    port = postfix.port("no chunking")
    emails = [an_email(text=".\nAll work and no play makes Jack a dull boy.\n" * count) for count in range(30)]
    async with slow_wire(port, LATENCY / 2) as wire:
        url = postfix.url("no chunking").replace(f":{port}", f":{wire.port}")
        async with a_mailer(url, patient=True, smtp_sessions=1) as mailer:
            await mailer.send(emails[0])
            before = wire.round_trips
            await asyncio.gather(*map(mailer.send, emails[1:]))
            assert wire.round_trips - before <= 1.1 * len(emails[1:])
    await arrived_all(postfix, emails)
    assert postfix.logged("data", "connect from") == 1
    await until(lambda: "mail=30 rcpt=30 data=30 quit=1 commands=" in postfix.log)


@pytest.mark.parametrize("service", ["no chunking", "no chunking, strict"])
async def test_unknown_recipients_among_envelopes_sent_ahead_affect_no_other_email(
    postfix: Postfix, service: str
) -> None:
    """The strict one ends the session at the second error."""
    emails = [an_email(UNKNOWN if number % 3 == 2 else "bob@example.com") for number in range(60)]
    async with a_mailer(postfix.url(service), patient=True, smtp_sessions=3) as mailer:
        results = await asyncio.gather(*map(mailer.send, emails), return_exceptions=True)
    assert {type(result) for result in results[2::3]} == {Refused}
    assert {str(result)[:9] for result in results[2::3]} == {"550 5.1.1"}
    assert [result for number, result in enumerate(results) if number % 3 != 2] == [None] * 40
    await arrived_all(postfix, [email for email in emails if email.to != UNKNOWN])


async def test_emails_arrive_over_starttls_with_a_login(postfix: Postfix, mailer: Mailer) -> None:
    for email in (an_email("bob@example.com"), an_email("carol@example.org")):
        await mailer.send(email)
        message = await arrived(postfix, email)
        assert message.startswith("Return-Path: <workshop@example.com>\n")
        assert f"\nDelivered-To: {email.to}\n" in message
        assert "(using TLSv1.3 with cipher " in message
        assert f"(Authenticated sender: {USER})" in message
        assert "(Postfix) with ESMTPSA id " in message


async def test_emails_arrive_over_implicit_tls(postfix: Postfix) -> None:
    email = an_email()
    async with a_mailer(postfix.url("smtps")) as mailer:
        await mailer.send(email)
    assert "(Postfix) with ESMTPSA id " in await arrived(postfix, email)


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("Hello", "How are you?"),
        ("Grüße an alle 🙂 " + "und noch viel mehr " * 8, "Grüße,\n.\n..\n\nJörg 🙂\n"),
        ("Dots and breaks", ".\n..\n...three\n\n.\r\nFrom me to you\n\n.\n"),
        ("A long line", "x" * 5000 + "\n." + "y" * 998),
        ("=?UTF-8?Q?=0A?=Bcc: eve@example.com", "Subject: another"),
        ("Much text", "All work and no play makes Jack a dull boy. " * 2000),
    ],
)
async def test_messages_arrive_as_they_were_built(postfix: Postfix, mailer: Mailer, subject: str, text: str) -> None:
    """Byte for byte, after the headers that mail servers add."""
    email = an_email(subject=subject, text=text)
    await mailer.send(email)
    _, start, rest = (await arrived(postfix, email)).partition("\nFrom: ")
    built = build_message(email, SENDER, read_address(email.to)).decode().replace("\r\n", "\n")
    assert without_date(start[1:] + rest) == without_date(built)


def without_date(message: str) -> str:
    changed, count = re.subn(r"(?m)^Date: .*\n", "", message, count=1)
    assert count == 1
    return changed


async def test_an_address_with_a_non_ascii_local_part_works(postfix: Postfix, mailer: Mailer) -> None:
    email = an_email("jörg@bücher.example")
    await mailer.send(email)
    message = await arrived(postfix, email)
    assert "\nTo: jörg@xn--bcher-kva.example\n" in message
    assert "\nDelivered-To: jörg@xn--bcher-kva.example\n" in message
    assert "(Postfix) with UTF8SMTPSA id " in message


async def test_an_address_with_an_international_domain_works(postfix: Postfix, mailer: Mailer) -> None:
    email = an_email("jo@bücher.example")
    await mailer.send(email)
    message = await arrived(postfix, email)
    assert "\nDelivered-To: jo@xn--bcher-kva.example\n" in message
    assert "(Postfix) with ESMTPSA id " in message


async def test_every_attempt_has_the_same_message_id(postfix: Postfix, mailer: Mailer) -> None:
    email = an_email()
    await mailer.send(email)
    await mailer.send(email)
    await until(lambda: len(postfix.arrived(email.id)) == 2)


async def test_a_wrong_password_raises_login_failed(postfix: Postfix) -> None:
    email = an_email()
    async with a_mailer(postfix.url(login="jo%40example.com:guess")) as mailer:
        with pytest.raises(LoginFailed, match="authentication failed"):
            await mailer.send(email)
        with pytest.raises(LoginFailed):
            await mailer.check()
    assert not postfix.arrived(email.id)


async def test_postfix_refuses_emails_without_a_login(postfix: Postfix) -> None:
    async with a_mailer(postfix.url(login="")) as mailer:
        with pytest.raises(Refused, match=r"554 5\.7\.1 .*Access denied"):
            await mailer.send(an_email())


async def test_the_session_stays_usable_after_an_unknown_recipient(postfix: Postfix) -> None:
    before, after = an_email(), an_email()
    async with a_mailer(postfix.url(), smtp_sessions=1) as mailer:
        await mailer.send(before)
        with pytest.raises(Refused, match=r"550 5\.1\.1 .*User unknown"):
            await mailer.send(an_email(UNKNOWN))
        await mailer.send(after)
    await arrived_all(postfix, [before, after])
    await until(lambda: "ehlo=2 starttls=1 auth=1 mail=3 rcpt=2/3 bdat=3/4 rset=1 quit=1" in postfix.log)


async def test_postfix_refuses_an_email_to_another_domain(postfix: Postfix, mailer: Mailer) -> None:
    with pytest.raises(Refused, match=r"550 5\.1\.1"):
        await mailer.send(an_email("dave@elsewhere.example"))
