"""Builds the message of an email (RFC 5322): the bytes that are sent by SMTP, without a way to inject a header.

The standard library's encoders are used, but not its message class: on CPython 3.11.7 `EmailMessage` decodes an encoded
word in a subject, and `=?UTF-8?Q?=0A?=Bcc: evil@x` becomes a real Bcc header. Here a value is either plain ASCII, which
is not changed, or encoded as a whole; and the finished header block is checked again.
"""

import re
from email.base64mime import body_encode
from email.header import Header
from email.utils import formatdate

from common.mail.emails import Address, Email

HEADERS = (
    "From",
    "To",
    "Subject",
    "Message-ID",
    "Date",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
)
# Exactly these headers in this order, each on one line or folded (RFC 5322, 2.2.3), without a bare CR or LF.
_BLOCK = re.compile(b"".join(rb"%s: [^\r\n]+\r\n(?: [^\r\n]+\r\n)*" % name.encode() for name in HEADERS))

_PLAIN_SUBJECT = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")  # ASCII, no space at either end
_MAX_LINE = 998  # octets without CRLF (RFC 5322, 2.1.1)


def build_message(email: Email, sender: Address, recipient: Address) -> bytes:
    """Build the message with CRLF line ends, not yet dot-stuffed.

    It is ASCII except for a UTF-8 local part in From or To, which needs SMTPUTF8 (RFC 6532). Raises ValueError if the
    header block has other headers than intended, which cannot happen with a checked `Email`.
    """
    encoding, body = _encode_text(email.text)
    values = (
        sender.wire,
        recipient.wire,
        _encode_subject(email.subject),
        email.id,
        formatdate(),
        "1.0",
        "text/plain; charset=utf-8",
        encoding,
    )
    block = "".join([f"{name}: {value}\r\n" for name, value in zip(HEADERS, values, strict=True)]).encode()
    if not _BLOCK.fullmatch(block):
        raise ValueError("the header block contains something other than the intended headers")
    return block + b"\r\n" + body


def _encode_subject(subject: str) -> str:
    """Return the subject unchanged if every mail reader shows it as it is, else as encoded words (RFC 2047)."""
    if _PLAIN_SUBJECT.fullmatch(subject) and "=?" not in subject:
        return subject
    return Header(subject, "utf-8", header_name="Subject").encode(linesep="\r\n")


def _encode_text(text: str) -> tuple[str, bytes]:
    """Return the transfer encoding and the encoded body: 7bit if the text allows it, else base64.

    SMTP sends lines, so a 7bit text gets a line break at its end; base64 contains the text without one.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    body = "\r\n".join(lines).encode()
    if text.isascii() and all(len(line) <= _MAX_LINE for line in lines):
        return "7bit", body + b"\r\n"
    return "base64", body_encode(body, eol="\r\n").encode()
