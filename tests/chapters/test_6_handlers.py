"""How handlers validate events that another program may have written."""

import json

import pytest

from common.processes.chapter import chapter_module
from eventlog import events

handlers = chapter_module("6_event_bus.handlers")


@pytest.mark.parametrize("to", [None, 1, "", "nobody", "nobody@", "@", "a@b c", "a@b\nc"])
def test_the_audit_refuses_an_event_without_a_domain(to: object) -> None:
    with pytest.raises(events.BadEvent):
        handlers.domain_of(events.Event("1", "email_requested", {"to": to}))


def test_the_domain_starts_after_the_last_at_sign() -> None:
    assert handlers.domain_of(events.Event("1", "email_requested", {"to": "a@b@c.example"})) == "c.example"


@pytest.mark.parametrize("event_id", ["", "a b", "a\nb", "ä", "x" * 251, 7, None])
def test_an_event_with_an_invalid_id_is_refused(event_id: object) -> None:
    """An id with a line break could add lines to the text that the scripts receive."""
    element = b"1 " + json.dumps({"id": event_id, "name": "x", "data": {}}).encode()
    with pytest.raises(events.BadEvent, match="id"):
        events.Claimed("email", "1-0", 1, element, 0.0).event()


@pytest.mark.parametrize("stamp", ["", "-1", "x", "1.5", "253402300800000", "9" * 22, "9" * 400, "9" * 5000])
def test_an_event_whose_time_is_not_a_date_is_refused(stamp: str) -> None:
    element = stamp.encode() + b' {"id": "1", "name": "x", "data": {}}'
    with pytest.raises(events.BadEvent, match="not a valid event"):
        events.Claimed("email", "1-0", 1, element, 0.0).event()


@pytest.mark.parametrize("stamp", [0, 253402300799999])
def test_the_hour_of_every_valid_event_is_known(stamp: int) -> None:
    event = events.Claimed("email", "1-0", 1, b'%d {"id": "1", "name": "x", "data": {}}' % stamp, 0.0).event()
    assert len(handlers.hour_of(event.at)) == len("1970-01-01T00")
