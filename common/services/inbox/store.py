"""The emails that have arrived: all are counted, the newest are kept in memory.

_kept     Message-ID -> Message, oldest arrival first; at most KEEP messages and KEEP_BYTES
_copies   Message-ID -> how often it has arrived: one entry for each id ever seen, kept or not

`unique` needs `_copies`, which grows by about 200 bytes for each id (200 MB for a million emails) until the inbox is
emptied. A production system would delete old entries.
"""

import re
from time import time

from asynckit.ids import new_id
from common.services.inbox.parsing import Message

KEEP = 10_000  # emails
KEEP_BYTES = 256 << 20

_MESSAGE_ID = re.compile(rb"(?:\A|\n)message-id[ \t]*:([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)", re.IGNORECASE)
_FOLD = re.compile(rb"\r?\n")


class Store:
    """`changes` grows with every arrival and every emptying, so that a reader can see whether anything has changed."""

    def __init__(self) -> None:
        self.changes = 0
        self._kept: dict[str, Message] = {}
        self._kept_bytes = 0
        self._copies: dict[str, int] = {}
        self._received = 0

    def add(self, sender: str, recipients: list[str], raw: bytes) -> None:
        """Add an email as it arrived by SMTP. Takes a few microseconds: an email is parsed when it is shown."""
        message_id = find_message_id(raw) or new_id("without-an-id.invalid")
        self._drop(message_id)  # an earlier copy: the list shows only the latest
        self._kept[message_id] = Message(message_id, sender, recipients, raw, time())
        self._kept_bytes += len(raw)
        self._copies[message_id] = self._copies.get(message_id, 0) + 1
        self._received += 1
        self.changes += 1
        while len(self._kept) > KEEP or self._kept_bytes > KEEP_BYTES:
            self._drop(next(iter(self._kept)))

    def newest(self, *, to: str | None = None, message_id: str | None = None) -> list[Message]:
        """The kept emails, newest first; with `to` or `message_id`, only those with exactly this value."""
        if message_id is not None:
            found = self._kept.get(message_id)
            messages = [found] if found else []
        else:
            messages = list(reversed(self._kept.values()))
        return [message for message in messages if to is None or to in message.recipients]

    def copies(self, message_id: str) -> int:
        return self._copies.get(message_id, 0)

    def stats(self) -> dict[str, int]:
        unique = len(self._copies)
        return {"received": self._received, "unique": unique, "duplicates": self._received - unique}

    def empty(self) -> None:
        self._kept, self._copies = {}, {}
        self._received = self._kept_bytes = 0
        self.changes += 1

    def _drop(self, message_id: str) -> None:
        if message := self._kept.pop(message_id, None):
            self._kept_bytes -= message.size


def find_message_id(raw: bytes) -> str | None:
    """The value of the Message-ID header, unfolded; None if there is none.

    Bytes that are not UTF-8 become escapes, so that two different invalid ids stay different.
    """
    end = 0 if raw.startswith(b"\r\n") else raw.find(b"\r\n\r\n")
    found = _MESSAGE_ID.search(raw, 0, end if end >= 0 else len(raw))
    return _FOLD.sub(b"", found[1]).strip().decode(errors="backslashreplace") if found else None
