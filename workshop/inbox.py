"""The mail server of a check: the embedded inbox in the check's own process, with a record of every moment."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable

from aiosmtpd.smtp import Envelope, Session

from common.services.inbox.faults import Dial
from common.services.inbox.smtp import REFUSALS, Handler, SmtpServer, SmtpSession
from common.services.inbox.store import Store, find_message_id
from lab.harness.mailbox import Arrival, MailFault

Refuse = Callable[[str, int], int]
"""The code with which attempt number n (1, 2, …) to send to this recipient is refused: 451, 550, or 0 for accepted."""


class Inbox(Store):
    """`take_seconds` is the time it needs to accept an email. If the sender dies before that, the email is not sent."""

    def __init__(self, take_seconds: float) -> None:
        super().__init__()
        self.take_seconds = take_seconds
        self.slow: dict[str, float] = {}
        """Seconds for these recipients instead."""
        self.arrivals: list[Arrival] = []
        self.refusals: list[MailFault] = []
        self.begun: list[Arrival] = []
        """All attempts, with the moment at which the message had arrived."""
        self.in_flight = 0
        self.most_in_flight = 0
        self.refuse: Refuse = lambda to, attempt: 0
        self.refuses_behind_gate = False
        self.gate = asyncio.Event()
        """While it is not set, the inbox accepts no email. It still refuses those that it always refuses, unless
        `refuses_behind_gate`."""
        self.gate.set()
        self.gates: dict[str, asyncio.Event] = {}
        """Gates of their own for these recipients."""
        self.pace_seconds = 0.0
        """Behind the gate, it accepts one email after the other, each in this time."""
        self._turn = asyncio.Lock()
        self._attempts: Counter[str] = Counter()
        self._server = SmtpServer(_Taking(self))

    @property
    def smtp_url(self) -> str:
        return f"smtp://127.0.0.1:{self._server.port}"

    async def open(self) -> None:
        await self._server.listen("127.0.0.1", 0)

    async def close(self) -> None:
        """Cut the open sessions, and wait until they have ended."""
        self._server.close()
        while self._server._sessions:  # noqa: ASYNC110  their transports end them by callbacks
            await asyncio.sleep(0)

    def add(self, sender: str, recipients: list[str], raw: bytes) -> None:
        self.arrivals += [Arrival(time.perf_counter_ns(), to, find_message_id(raw) or "-") for to in recipients]

    async def pass_gate(self, to: str) -> None:
        await self.gates.get(to, self.gate).wait()
        if self.pace_seconds:
            async with self._turn:
                await asyncio.sleep(self.pace_seconds)

    def refusal(self, to: str) -> int:
        self._attempts[to] += 1
        return self.refuse(to, self._attempts[to])


class _Taking(Handler):
    def __init__(self, inbox: Inbox) -> None:
        super().__init__(inbox, Dial())
        self._inbox = inbox

    async def handle_DATA(self, server: SmtpSession, session: Session, envelope: Envelope) -> str:  # noqa: N802
        inbox = self._inbox
        raw = envelope.original_content
        assert isinstance(raw, bytes)
        now, message_id = time.perf_counter_ns(), find_message_id(raw) or "-"
        inbox.begun += [Arrival(now, to, message_id) for to in envelope.rcpt_tos]
        [to] = envelope.rcpt_tos
        if code := inbox.refusal(to):
            if inbox.refuses_behind_gate:
                await inbox.gate.wait()
            inbox.refusals.append(MailFault(now, to, str(code)))
            server.end_transaction()
            return REFUSALS[code]
        inbox.in_flight += 1
        inbox.most_in_flight = max(inbox.most_in_flight, inbox.in_flight)
        try:
            await asyncio.sleep(
                inbox.slow.get(to, inbox.take_seconds)
            )  # aiosmtpd cancels this, and the next line, if the connection ends
            await inbox.pass_gate(to)
            return await super().handle_DATA(server, session, envelope)
        finally:
            inbox.in_flight -= 1
