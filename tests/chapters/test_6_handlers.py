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
