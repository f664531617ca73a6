"""`python -m lab.harness.inbox JOURNAL`: the embedded inbox for experiments, with a record that survives a kill.

It is common/services/inbox with its fault dial, and five additions:

- A journal on disk, as a real mail server has its queue on disk. Before it answers 250 it writes one line,
  `<perf_counter_ns> <recipient> <Message-ID>`, so a kill does not lose the record of an accepted email. All processes
  of a machine share this clock.
- The journal also has what the dial does to an email, in place of the Message-ID: `!450` for a greylisted recipient,
  `!452` (recipient `-`) for a session at its limit, `!451` or `!550` for a refusal, `!hang`, `!lose_reply`.
- With `--attempts` it also has `?begin` when a recipient is accepted and `?end` when the connection is lost before the
  answer to the message, so that a reader knows which emails are in flight.
- `--take-ms` is the time it needs to accept an email. If the sender dies or gives up before that, the email is not
  sent. (The dial's latency comes after the email is stored: if the sender dies then, the email is sent.)
- `PUT /api/seed` with any text seeds the dial's random generator.

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
    """The store of the inbox. It writes every arrival to the journal first."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def add(self, sender: str, recipients: list[str], raw: bytes) -> None:
        self.write(recipients, find_message_id(raw) or "-")
        super().add(sender, recipients, raw)

    def write(self, recipients: list[str], what: str) -> None:
        line = f"{time.perf_counter_ns()} {','.join(recipients)} {what}\n"
        os.write(self._file, line.encode())  # one write, so a kill leaves no part of a line


class SlowHandler(Handler):
    def __init__(self, journal: Journal, dial: Dial, take_seconds: float, *, attempts: bool = False) -> None:
        super().__init__(journal, dial)
        self._journal = journal
        self._attempts = attempts
        self._take_seconds = take_seconds

    async def handle_DATA(self, server: SmtpSession, session: Session, envelope: Envelope) -> str:  # noqa: N802
        await asyncio.sleep(self._take_seconds)  # aiosmtpd cancels this when the connection ends
        return await super().handle_DATA(server, session, envelope)

    async def handle_MAIL(  # noqa: N802
        self, server: SmtpSession, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        reply = await super().handle_MAIL(server, session, envelope, address, options)
        return self._record_refusal("-", reply)

    async def handle_RCPT(  # noqa: N802
        self, server: SmtpSession, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        reply = await super().handle_RCPT(server, session, envelope, address, options)
        if self._attempts and reply.startswith("2"):
            self._journal.write([address], "?begin")
        return self._record_refusal(address, reply)

    def _record_refusal(self, recipient: str, reply: str) -> str:
        if not reply.startswith("2"):
            self._journal.write([recipient], f"!{reply[:3]}")
        return reply

    def connection_lost(self, session: SmtpSession) -> None:
        if self._attempts and session.in_transaction and isinstance(session.envelope, Envelope):
            self._journal.write(session.envelope.rcpt_tos, "?end")

    def fate_of(self, envelope: Envelope) -> Fate:
        fate = super().fate_of(envelope)
        if fate is Fate.REFUSE:
            self._journal.write(envelope.rcpt_tos, f"!{self._dial.faults.refuse_code}")
        elif fate is not Fate.ACCEPT:
            self._journal.write(envelope.rcpt_tos, f"!{fate.name.lower()}")
        return fate


class WatchedSession(SmtpSession):
    def connection_lost(self, error: Exception | None) -> None:
        self.event_handler.connection_lost(self)
        super().connection_lost(error)


class WatchedServer(SmtpServer):
    def _session(self) -> SmtpSession:
        return WatchedSession(self._handler, self._sessions, self._connections)


async def serve(options: argparse.Namespace) -> None:
    journal, dial = Journal(options.journal), Dial()
    handler = SlowHandler(journal, dial, options.take_ms / 1000, attempts=options.attempts)
    smtp = WatchedServer(handler)
    await smtp.listen(LOOPBACK, options.smtp_port)
    app = create_app(journal, dial)

    async def seed_dial(request: web.Request) -> web.Response:
        dial.random.seed(await request.text())
        return web.Response()

    app.router.add_put("/api/seed", seed_dial)
    runner = await start(app, LOOPBACK, options.port)
    print(smtp.port, runner.addresses[0][1], flush=True)
    await stop_requested()
    smtp.close()
    await runner.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description="The embedded inbox with a journal on disk.")
    parser.add_argument("journal", type=Path)
    parser.add_argument("--smtp-port", type=int, default=0, help="0: any free port, which is printed")
    parser.add_argument("--port", type=int, default=0, help="of its page and its API")
    parser.add_argument("--take-ms", type=float, default=0.0, help="the time it needs to accept an email")
    parser.add_argument("--attempts", action="store_true", help="record the beginning of each attempt too")
    options = parser.parse_args()
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    run(serve(options))


if __name__ == "__main__":
    main()
