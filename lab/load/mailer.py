"""`python -m lab.load.mailer`: send emails through our mailer, as fast as it can, to the server of SMTP_URL.

The settings are those of a strategy. The log is written as in a strategy, but discarded. Prints JSON: emails sent
(including the warm-up), seconds and emails per second after the warm-up, times in ms.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from itertools import count

from asynckit.ids import new_id
from common.mail.emails import Email
from common.mail.mailer import Mailer
from common.processes.process import run
from common.settings import read_settings
from lab.harness.figures import percentile
from lab.load.http import TEXT

WARM_UP_SECONDS = 0.3


class MailerLoad:
    """Sends each email to a different recipient, so that no cache of addresses helps."""

    def __init__(self, mailer: Mailer, domain: str) -> None:
        self.times: list[int] = []  # ns
        self._mailer = mailer
        self._domain = domain
        self._numbers = count()

    async def send_for(self, senders: int, seconds: float) -> float:
        """Send for at least `seconds`. Returns the seconds that it took."""
        started = time.perf_counter()
        await asyncio.gather(*[self._send_until(started + seconds) for _ in range(senders)])
        return time.perf_counter() - started

    async def _send_until(self, deadline: float) -> None:
        while True:
            email = Email(new_id(self._domain), f"reader{next(self._numbers)}@example.com", "Hello", TEXT)
            started = time.perf_counter_ns()
            await self._mailer.send(email)
            self.times.append(time.perf_counter_ns() - started)
            if time.perf_counter() >= deadline:
                return


async def send_emails(senders: int, seconds: float, result: dict[str, float]) -> None:
    settings = read_settings()
    async with Mailer(settings) as mailer:
        load = MailerLoad(mailer, settings.id_domain)
        await load.send_for(senders, WARM_UP_SECONDS)
        warm = len(load.times)
        took = await load.send_for(senders, seconds)
    times = load.times[warm:]
    result |= {"sent": mailer.sent, "seconds": took, "rate": len(times) / took}
    result |= {f"p{percent}_ms": percentile(times, percent) / 1e6 for percent in (50, 99)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Emails through our mailer to the server of SMTP_URL.")
    parser.add_argument("--senders", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    result: dict[str, float] = {}
    output = sys.stdout
    with open(os.devnull, "w") as sys.stdout:  # because run() sends the log there
        run(send_emails(options.senders, options.seconds, result), until_stopped=False)
    print(json.dumps(result), file=output)


if __name__ == "__main__":
    main()
