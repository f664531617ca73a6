"""Dates as Ruby, Node and our programs write them."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_JS_DATE = re.compile(r"^\w{3} (\w{3}) (\d{2}) (\d{4}) (\d\d:\d\d:\d\d) GMT([+-]\d{4})")


def moment_of(date: object) -> float | None:
    """Parse a date in any format that Ruby, Node or our code writes. Returns unix seconds; None if it is not a date."""
    text = date.decode(errors="replace") if isinstance(date, bytes) else date
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        return float(text)
    if not isinstance(text, str):
        return None
    if re.fullmatch(r"\d{1,12}", text, re.ASCII):
        return float(text)
    text = re.sub(" (UTC|GMT)$", " +0000", text.strip())
    if found := _JS_DATE.match(text):
        month, day, year, clock, offset = found.groups()
        text = f"{day} {month} {year} {clock} {offset}"
    for form in ("%Y/%m/%d %H:%M:%S %z", "%Y-%m-%d %H:%M:%S %z", "%d %b %Y %H:%M:%S %z"):
        try:
            return datetime.strptime(text, form).timestamp()
        except ValueError:
            continue
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
