"""Parses an email for the inbox's page. It never fails: an email that cannot be parsed is shown as it arrived.

Subject and From are decoded here and not by the standard library's newer policies, because on CPython 3.11.7 these take
an encoded line break in a subject for the start of another header. Here a decoded word is only text and is not decoded
again.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import Message as ParsedMessage
from email.policy import compat32
from typing import NamedTuple

# RFC 2047, section 2: =?charset?encoding?text?=, the charset perhaps with a language (RFC 2231, section 5).
_ENCODED_WORD = re.compile(r"=\?([^?*\s]+)(?:\*[^?\s]*)?\?([bBqQ])\?([^?\s]*)\?=")
# Section 6.2: white space between two encoded words belongs to neither.
_BETWEEN_WORDS = re.compile(r"(?<=\?=)\s+(?==\?[^?\s]+\?[bBqQ]\?)")
_FOLD = re.compile(r"\r?\n(?=[ \t])")


class Shown(NamedTuple):
    """What the page shows of an email; every string can be encoded as UTF-8."""

    sender: str
    subject: str
    text: str


class Message:
    """An email that has arrived. It is parsed when it is shown for the first time."""

    __slots__ = ("_raw", "_sender", "_shown", "id", "received", "recipients", "size")

    def __init__(self, message_id: str, sender: str, recipients: list[str], raw: bytes, received: float) -> None:
        """`sender` and `recipients` are those of the envelope, `received` is in seconds since 1970."""
        self.id = message_id
        self.recipients = recipients
        self.received = received
        self.size = len(raw)
        self._sender = sender
        self._raw = raw
        self._shown: Shown | None = None

    def to_dict(self, copies: int) -> dict[str, object]:
        if self._shown is None:
            self._shown = read_message(self._raw)
            self._raw = b""
        return {
            "message_id": self.id,
            "from": self._shown.sender or _encodable(self._sender),
            "to": _encodable(", ".join(self.recipients)),
            "subject": self._shown.subject,
            "text": self._shown.text,
            "received_at": _iso(self.received),
            "copies": copies,
        }


def read_message(raw: bytes) -> Shown:
    """Parse an email as it arrived by SMTP, with its dots unstuffed. Never raises."""
    try:
        parsed = message_from_bytes(raw, policy=compat32)
        headers = {name.lower(): str(value) for name, value in reversed(list(parsed.raw_items()))}
        sender, subject = (decode_header(headers.get(name, "")) for name in ("from", "subject"))
        text = _text_of(parsed)
    except Exception:  # the library's parser has had many bugs, and the inbox must show every email
        sender, subject, text = "", "", raw.decode(errors="replace")
    return Shown(_encodable(sender), _encodable(subject), _encodable(text))


def decode_header(value: str) -> str:
    """Decode the encoded words of a header value, once. A word that cannot be decoded is left as it is."""
    unfolded = _FOLD.sub("", _decode(value.encode(errors="surrogateescape"), "utf-8")).strip(" \t")
    return _ENCODED_WORD.sub(_decode_word, _BETWEEN_WORDS.sub("", unfolded))


def _decode_word(word: re.Match[str]) -> str:
    charset, encoding, text = word.groups()
    try:
        if encoding in "bB":
            octets = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        else:
            octets = binascii.a2b_qp(text, header=True)
        return octets.decode(charset)
    except (LookupError, ValueError):  # unknown charset; octets that are not in it; broken base64
        return word[0]


def _text_of(message: "ParsedMessage[str, str]") -> str:
    """The plain text, or else the first text of any kind (HTML as its source); "" if there is none."""
    texts = [part for part in _own_parts(message) if part.get_content_maintype() == "text"]
    part = next((part for part in texts if part.get_content_subtype() == "plain"), next(iter(texts), None))
    if part is None:
        return ""
    payload = part.get_payload(decode=True)
    octets = payload if isinstance(payload, bytes) else b""
    text = _decode(octets, part.get_content_charset() or "utf-8").replace("\r\n", "\n")
    # The line break before the final dot belongs to SMTP and not to the text; base64 does not contain it.
    in_base64 = str(part.get("Content-Transfer-Encoding", "")).strip().lower() == "base64"
    return text if in_base64 else text.removesuffix("\n")


def _own_parts(message: "ParsedMessage[str, str]") -> "Iterator[ParsedMessage[str, str]]":
    """The message and its parts, without attachments and without the parts of messages inside it."""
    yield message
    if message.get_content_maintype() == "multipart" and message.is_multipart():
        for part in message.get_payload():
            if isinstance(part, ParsedMessage) and part.get_content_disposition() != "attachment":
                yield from _own_parts(part)


def _decode(octets: bytes, charset: str) -> str:
    """Decode with the given charset; if that fails, as UTF-8; if that fails too, as Latin-1, which accepts any bytes.

    If some bytes are valid UTF-8 beyond ASCII, we take the whole for UTF-8 and show the invalid bytes as U+FFFD.
    """
    for encoding in (charset, "utf-8"):
        try:
            return octets.decode(encoding)
        except (LookupError, ValueError):
            continue
    text = octets.decode(errors="replace")
    return text if any(character > "\x7f" and character != "\ufffd" for character in text) else octets.decode("latin-1")


def _encodable(text: str) -> str:
    """Replace halves of surrogate pairs, which neither JSON nor UTF-8 can represent."""
    return text.encode(errors="replace").decode()


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
