"""Given: sends the emails of a JSON list, all at the same time, with your backoff.py; or prints pauses."""

import asyncio
import json
import os
import sys

from backoff import deliver, pause

from common.mail.emails import Email
from common.mail.mailer import Mailer
from common.processes.process import run
from common.settings import read_settings

ATTEMPTS = (1, 2, 3, 4, 5, 6, 7, 8, 12, 5000)
SAMPLES = 200


async def send_all(emails: list[dict[str, str]]) -> None:
    async with Mailer(read_settings(), patient=True) as mailer:
        results = await asyncio.gather(*[deliver(mailer, Email(**email)) for email in emails])
    print("results " + json.dumps(results), flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["pauses"]:
        print("pauses " + json.dumps({n: [pause(n) for _ in range(SAMPLES)] for n in ATTEMPTS}), flush=True)
    else:
        run(send_all(json.loads(os.environ["EMAILS"])), until_stopped=False)
