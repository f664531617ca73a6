"""Requests and arrivals of a made-up load, for the account of `make faults`."""

from lab.harness.mailbox import Arrival
from lab.load.steady import Record


def asked(number: int, status: int = 202, email_id: str | None = None) -> Record:
    """Email `number` was due at 10 * number, requested 1 ns later and answered 2 ns later."""
    due = 10 * number
    found = f"<{number}>" if email_id is None and 200 <= status < 300 else email_id or ""
    return number, due, due + 1, due + 2 if status else 0, status, found


def arrived(number: int, at: int, email_id: str | None = None) -> Arrival:
    return Arrival(at, f"t-{number}@example.com", email_id or f"<{number}>")
