"""Emails that the tests send through a real Postfix."""

from typing import Any

from common.mail.emails import Email
from common.mail.mailer import Mailer
from tests.support.postfix import Postfix
from tests.support.programs import until
from tests.support.smtp_peer import settings


def a_mailer(url: str, *, patient: bool = False, **more: Any) -> Mailer:
    return Mailer(settings(smtp_url=url, **more), patient=patient)


async def arrived(postfix: Postfix, email: Email) -> str:
    """Wait until this email has arrived, exactly one copy. Returns the whole message."""
    await until(lambda: postfix.arrived(email.id))
    [message] = postfix.arrived(email.id)
    return message.decode()


async def arrived_all(postfix: Postfix, emails: list[Email]) -> None:
    """Wait until each of these emails has arrived, and check that none came twice."""
    await until(lambda: all(postfix.arrived(email.id) for email in emails))
    assert {len(postfix.arrived(email.id)) for email in emails} == {1}
