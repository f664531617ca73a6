"""`python -m lab.inbox JOURNAL`: the embedded inbox for an experiment, so that it may be killed and still be believed.

It is common/inbox, the dial of faults included, and two things more:

- Its memory is a file, as that of a real mail server is. Before it says 250 it has written one line,
  `<perf_counter_ns> <recipient> <Message-ID>`, so what it has taken is on record whatever kills it. The clock is the
  one that all processes of a machine share.
- To take an email it needs `--take-ms`. Who dies or gives up meanwhile has sent nothing. (The dial's latency comes
  after the email is kept: there, a sender that dies has sent it.)

Prints its two ports, SMTP and HTTP.
"""

import argparse
import asyncio
import logging
import os
import time
from pathlib import Path
from random import Random

from aiosmtpd.smtp import Envelope, Session

from common.inbox.faults import Dial
from common.inbox.smtp import Handler, SmtpServer, SmtpSession
from common.inbox.store import Store, find_message_id
from common.inbox.web import LOOPBACK, create_app
from common.process import run, stop_requested
from common.serving import start


class Journal(Store):
    """The store, which writes down every arrival before it takes it in."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def add(self, sender: str, recipients: list[str], raw: bytes) -> None:
        line = f"{time.perf_counter_ns()} {','.join(recipients)} {find_message_id(raw) or '-'}\n"
        os.write(self._file, line.encode())  # one write: a line is there or it is not
        super().add(sender, recipients, raw)


class SlowHandler(Handler):
    def __init__(self, store: Store, dial: Dial, take_seconds: float) -> None:
        super().__init__(store, dial)
        self._take_seconds = take_seconds

    async def handle_DATA(self, server: SmtpSession, session: Session, envelope: Envelope) -> str:  # noqa: N802
        await asyncio.sleep(self._take_seconds)  # aiosmtpd cancels this when the connection ends
        return await super().handle_DATA(server, session, envelope)


async def serve(options: argparse.Namespace) -> None:
    store, dial = Journal(options.journal), Dial(Random(options.seed))
    smtp = SmtpServer(SlowHandler(store, dial, options.take_ms / 1000))
    await smtp.listen(LOOPBACK, options.smtp_port)
    runner = await start(create_app(store, dial), LOOPBACK, options.port)
    print(smtp.port, runner.addresses[0][1], flush=True)
    await stop_requested()
    smtp.close()
    await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description="The embedded inbox, its memory a file.")
    parser.add_argument("journal", type=Path)
    parser.add_argument("--smtp-port", type=int, default=0, help="0: any free one, printed")
    parser.add_argument("--port", type=int, default=0, help="of its page and its API")
    parser.add_argument("--take-ms", type=float, default=0.0, help="how long it needs to take an email")
    parser.add_argument("--seed", type=int, default=0, help="of the chance by which the dial decides")
    options = parser.parse_args()
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    run(serve(options))


if __name__ == "__main__":
    main()
