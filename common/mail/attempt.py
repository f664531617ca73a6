"""One attempt to send one email, as it passes through the mailer, the queue for a session, and the session."""

from dataclasses import dataclass
from typing import Self

from common.mail.emails import Address
from common.mail.smtp_conversation import Exchange


@dataclass(slots=True, eq=False)
class Attempt:
    sender: Address
    recipient: Address
    message: bytes
    """With CRLF line ends, not yet dot-stuffed."""
    started: float = 0.0
    """time.monotonic(), seconds."""
    envelope: Exchange | None = None
    """MAIL, RCPT and DATA, if they were sent ahead, in one write with the message of the email before."""
    handed_in: Exchange | None = None
    """The message was sent, and its answer has not been read."""
    next: Self | None = None
    """The email whose envelope was sent ahead with this message."""
    on_trial: bool = False
    """Part of the first envelope sent ahead to a server: see common/mail/ahead.py."""

    @property
    def in_doubt(self) -> bool:
        return self.handed_in is not None and self.handed_in.in_doubt

    @property
    def needs_smtputf8(self) -> bool:
        return self.sender.needs_smtputf8 or self.recipient.needs_smtputf8

    @property
    def mail(self) -> bytes:
        return f"MAIL FROM:<{self.sender.wire}>{' SMTPUTF8' if self.needs_smtputf8 else ''}\r\n".encode()

    @property
    def rcpt(self) -> bytes:
        return f"RCPT TO:<{self.recipient.wire}>\r\n".encode()
