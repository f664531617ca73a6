"""Which answer a client gets, and which name a picture gets."""

import pytest

from examples.pictures.negotiation import quality
from examples.pictures.upload import NAME_LENGTH, clean_name


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("*/*", False),
        ("application/json", False),
        ("text/html;q=0.5, application/json", False),
        ("text/*", True),
        ("text/html;q=0, */*", False),
        ("text/html; level=1; q=0.9, */*;q=0.1", True),
        ("TEXT/HTML", True),
        ("text/html;q=x, application/json;q=0.1", False),
        ("image/webp", False),
        ("", False),
    ],
)
def test_a_client_gets_html_if_it_prefers_it(accept: str, html: bool) -> None:
    assert (quality(accept, "text/html") > quality(accept, "application/json")) is html


@pytest.mark.parametrize(
    ("given", "name"),
    [("  a\tb\n", "a b"), ("\x00\u202e", None), ("", None), ("ä" * 300, "ä" * NAME_LENGTH), ("<b>&\"'", "<b>&\"'")],
)
def test_a_name_is_one_printable_line(given: str, name: str | None) -> None:
    assert clean_name(given) == name
