"""What handlers make of events that somebody else has written."""

import json

import pytest

from common.processes.chapter import chapter_module
from eventlog import events

handlers = chapter_module("6_event_bus.handlers")


@pytest.mark.parametrize("to", [None, 1, "", "nobody", "nobody@", "@", "a@b c", "a@b\nc"])
def test_what_has_no_domain_is_not_counted_by_the_audit(to: object) -> None:
    with pytest.raises(events.BadEvent):
        handlers.domain_of(events.Event("1", "email_requested", {"to": to}))


def test_the_domain_is_behind_the_last_at_sign() -> None:
    assert handlers.domain_of(events.Event("1", "email_requested", {"to": "a@b@c.example"})) == "c.example"


@pytest.mark.parametrize("event_id", ["", "a b", "a\nb", "ä", "x" * 251, 7, None])
def test_what_has_no_id_of_one_word_is_no_event(event_id: object) -> None:
    """An id with a line break would write lines of its own wherever ids are written in lines."""
    element = b"1 " + json.dumps({"id": event_id, "name": "x", "data": {}}).encode()
    with pytest.raises(events.BadEvent, match="id"):
        events.Claimed("email", "1-0", 1, element, 0.0).event()
