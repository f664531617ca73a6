"""Your file: how often an email is tried, and how long it waits between two attempts."""

import asyncio
import os

from common.mail.emails import Email
from common.mail.errors import Refused, SendError  # noqa: F401  you may need both
from common.mail.mailer import Mailer

BASE = float(os.environ.get("BASE", "1"))  # seconds
CAP = float(os.environ.get("CAP", "60"))  # seconds
ATTEMPTS = int(os.environ.get("ATTEMPTS", "8"))


def pause(attempt: int) -> float:
    """The pause in seconds after the failed attempt number `attempt` (1, 2, …)."""
    return BASE


async def deliver(mailer: Mailer, email: Email) -> bool:
    """Try until the email was sent, refused for good, or tried ATTEMPTS times. Returns whether it was sent."""
    while True:
        try:
            await mailer.send(email)
        except SendError:
            await asyncio.sleep(pause(1))
        else:
            return True
