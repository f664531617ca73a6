"""Your file: how often an email is tried, and how long it waits between two attempts."""

import asyncio
import os
import random

from common.mail.emails import Email
from common.mail.errors import Refused, SendError
from common.mail.mailer import Mailer

BASE = float(os.environ.get("BASE", "1"))  # seconds
CAP = float(os.environ.get("CAP", "60"))  # seconds
ATTEMPTS = int(os.environ.get("ATTEMPTS", "8"))


def pause(attempt: int) -> float:
    """The pause in seconds after the failed attempt number `attempt` (1, 2, …)."""
    longest = min(CAP, BASE * 2.0 ** min(attempt - 1, 60))
    return random.uniform(0.0, longest)


async def deliver(mailer: Mailer, email: Email) -> bool:
    """Try until the email was sent, refused for good, or tried ATTEMPTS times. Returns whether it was sent."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            await mailer.send(email)
        except Refused:
            return False
        except SendError:
            if attempt < ATTEMPTS:
                await asyncio.sleep(pause(attempt))
        else:
            return True
    return False
