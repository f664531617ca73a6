"""A mailer and a mail server for the tests of envelopes that are sent ahead."""

import asyncio
from typing import Any

from common.mail.emails import Email
from common.mail.mailer import Mailer
from tests.support.programs import LIMIT
from tests.support.smtp_peer import SmtpPeer


def a_mailer(peer: SmtpPeer, sessions: int = 1, **more: Any) -> Mailer:
    return Mailer(peer.settings(smtp_sessions=sessions, **more), patient=not more)


async def send_all(mailer: Mailer, *emails: Email) -> list[BaseException | None]:
    async with asyncio.timeout(LIMIT):
        return await asyncio.gather(*map(mailer.send, emails), return_exceptions=True)


def copies(peer: SmtpPeer, email: Email) -> int:
    return sum(f"Message-ID: {email.id}\r\n".encode() in message for message in peer.messages)
