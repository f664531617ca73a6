"""Message-IDs whose left side is a UUIDv7 (RFC 9562): they sort by age and contain the time when they were made."""

import os
import re
import time
from collections.abc import Iterator

# A UUIDv7, with or without dashes, alone or as the left side of a Message-ID.
_UUID7 = re.compile(r"<?([0-9a-f]{8})-?([0-9a-f]{4})-?7[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}(?![0-9a-f])", re.I)


def new_id(domain: str) -> str:
    """A new Message-ID in the sender's domain. It does not depend on the content: two equal requests are two emails.

    Its left side is a UUIDv7 (RFC 9562) in hex. It begins with the time in ms, so ids sort by age, and a queue that
    stores only the email can still compute how long it has waited.
    """
    return f"<{int(time.time() * 1000):012x}7{next(_random_bits)}@{domain}>"


def made_at(email_id: str) -> float | None:
    """When an id was made, in unix seconds by its maker's clock; None if the id contains no time."""
    found = _UUID7.match(email_id)
    return int(found[1] + found[2], 16) / 1000 if found else None


def _make_random_bits() -> Iterator[str]:
    """The last 19 hex digits of a UUIDv7: 12 random bits, the variant, 62 random bits. Reads random bytes in blocks."""
    while True:
        digits = os.urandom(256 * 10).hex()
        for start in range(0, len(digits), 20):
            yield f"{digits[start : start + 3]}{'89ab'[ord(digits[start + 3]) % 4]}{digits[start + 4 : start + 19]}"


_random_bits = _make_random_bits()
