"""`python -m lab.harness.inbox JOURNAL`: the embedded inbox for an experiment, which survives a kill.

It is common/services/inbox, the dial of faults included, and four things more:

- Its memory is a file, as that of a real mail server is. Before it says 250 it has written one line,
  `<perf_counter_ns> <recipient> <Message-ID>`, so what it has taken is on record whatever kills it. The clock is the
  one that all processes of a machine share.
- What the dial does to an email is in there too, in the place of the Message-ID: `!450` for a greylisted recipient,
  `!452` (recipient `-`) for a session at its limit, `!451` or `!550` for what it refuses, `!hang`, `!lose_reply`.
- To take an email it needs `--take-ms`. Who dies or gives up meanwhile has sent nothing. (The dial's latency comes
  after the email is kept: there, a sender that dies has sent it.)
- `PUT /api/seed`, any text: from here on the dial's chance is that of this seed.

Prints its two ports, SMTP and HTTP.
"""

import argparse
import asyncio
import logging
import os
import time
from pathlib import Path

from aiohttp import web
from aiosmtpd.smtp import Envelope, Session

from common.http.serving import start
from common.processes.process import run, stop_requested
from common.services.inbox.faults import Dial, Fate
from common.services.inbox.smtp import Handler, SmtpServer, SmtpSession
from common.services.inbox.store import Store, find_message_id
from common.services.inbox.web import LOOPBACK, create_app


class Journal(Store):
    """The store, which writes down every arrival before it takes it in."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def add(self, sender: str, recipients: list[str], raw: bytes) -> None:
        self.write(recipients, find_message_id(raw) or "-")
        super().add(sender, recipients, raw)

    def write(self, recipients: list[str], what: str) -> None:
        line = f"{time.perf_counter_ns()} {','.join(recipients)} {what}\n"
        os.write(self._file, line.encode())  # one write: a line is there or it is not


class SlowHandler(Handler):
    def __init__(self, journal: Journal, dial: Dial, take_seconds: float) -> None:
        super().__init__(journal, dial)
        self._journal = journal
        self._take_seconds = take_seconds

    async def handle_DATA(self, server: SmtpSession, session: Session, envelope: Envelope) -> str:  # noqa: N802
        await asyncio.sleep(self._take_seconds)  # aiosmtpd cancels this when the connection ends
        return await super().handle_DATA(server, session, envelope)

    async def handle_MAIL(  # noqa: N802
        self, server: SmtpSession, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        reply = await super().handle_MAIL(server, session, envelope, address, options)
        return self._noted("-", reply)

    async def handle_RCPT(  # noqa: N802
        self, server: SmtpSession, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        reply = await super().handle_RCPT(server, session, envelope, address, options)
        return self._noted(address, reply)

    def _noted(self, recipient: str, reply: str) -> str:
        if not reply.startswith("2"):
            self._journal.write([recipient], f"!{reply[:3]}")
        return reply

    def fate_of(self, envelope: Envelope) -> Fate:
        fate = super().fate_of(envelope)
        if fate is Fate.REFUSE:
            self._journal.write(envelope.rcpt_tos, f"!{self._dial.faults.refuse_code}")
        elif fate is not Fate.ACCEPT:
            self._journal.write(envelope.rcpt_tos, f"!{fate.name.lower()}")
        return fate


async def serve(options: argparse.Namespace) -> None:
    journal, dial = Journal(options.journal), Dial()
    smtp = SmtpServer(SlowHandler(journal, dial, options.take_ms / 1000))
    await smtp.listen(LOOPBACK, options.smtp_port)
    app = create_app(journal, dial)

    async def throw_new_dice(request: web.Request) -> web.Response:
        dial.random.seed(await request.text())
        return web.Response()

    app.router.add_put("/api/seed", throw_new_dice)
    runner = await start(app, LOOPBACK, options.port)
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
    options = parser.parse_args()
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    run(serve(options))


if __name__ == "__main__":
    main()
