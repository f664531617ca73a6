"""Reading an email from a path and from JSON: what is accepted and what is refused."""

from collections.abc import Callable
from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.mail.emails import (
    BadEmail,
    _ask_library,
    _decode,
    email_from_path,
    read_address,
)

DOMAIN = "example.com"


def path(to: str = "bob@example.com", subject: str = "Hello", text: str = "Hi") -> str:
    return "/" + "/".join(quote(part, safe="") for part in (to, subject, text))


def test_a_path_of_three_parts_becomes_an_email() -> None:
    email = email_from_path(path("bob@example.com", "a/b ü?", "50% of #1"), DOMAIN)
    assert (email.to, email.subject, email.text) == ("bob@example.com", "a/b ü?", "50% of #1")


def test_unencoded_utf_8_is_accepted_in_the_request_line() -> None:
    raw = "/bob@example.com/Grüße/x".encode().decode("utf-8", "surrogateescape")
    assert email_from_path(raw, DOMAIN).subject == "Grüße"


def test_two_equal_requests_are_two_emails() -> None:
    assert email_from_path(path(), DOMAIN).id != email_from_path(path(), DOMAIN).id


CONTROLS = {
    "line break": "%0A",
    "CR": "%0D",
    "CR LF and a header": "%0D%0ABcc:%20x",
    "NUL": "%00",
    "escape": "%1B",
    "DEL": "%7F",
    "tab": "%09",
    "U+0085": "%C2%85",
    "U+2028": "%E2%80%A8",
    "U+2029": "%E2%80%A9",
    "lone surrogate": "%ED%A0%80",
    "undecodable byte": "%FF",
    "overlong slash": "%C0%AF",
    "half a character": "%C3",
}


@pytest.mark.parametrize("field", ["to", "subject", "text"])
@pytest.mark.parametrize("control", CONTROLS.values(), ids=CONTROLS.keys())
@pytest.mark.parametrize("place", ["start", "middle", "end"])
def test_a_control_character_is_refused_with_the_name_of_the_field(field: str, control: str, place: str) -> None:
    parts = {"to": "bob@example.com", "subject": "Hello", "text": "Hi"}
    value = parts[field]
    parts[field] = {"start": control + value, "middle": value[:1] + control + value[1:], "end": value + control}[place]
    with pytest.raises(BadEmail) as caught:
        email_from_path("/" + "/".join(parts.values()), DOMAIN)
    assert caught.value.field == field


NOT_ONE_ADDRESS = [
    "nobody",
    "@example.com",
    "bob@",
    "bob@localhost",
    "bob@@example.com",
    "a@b.com, evil@x.com",
    "a@b.com,evil@x.com",
    "a@b.com; c@d.com",
    "a@b.com c@d.com",
    "g: a@b.com, c@d.com;",
    "g:a@b.com;",
    '"evil@x.com" <a@b.com>',
    "Bob <bob@example.com>",
    "<bob@example.com>",
    "@relay.com:bob@example.com",
    "<@relay.com:bob@example.com>",
    "bob@example.com(comment)",
    "(comment)bob@example.com",
    "bob @example.com",
    "bob@ example.com",
    " bob@example.com",
    "bob@example.com ",
    '"bob"@example.com',
    '"bob smith"@example.com',
    "bob@[127.0.0.1]",
    "bob@[IPv6:::1]",
    ".bob@example.com",
    "bob.@example.com",
    "bo..b@example.com",
    "bob@example..com",
    "bob@.example.com",
    "bob@-example.com",
    "bob@exa_mple.com",
    "bob%40example.com",
    "bob@example.com>\x20NOTIFY=NEVER",
    "bob@example.com.",
    "a" * 65 + "@example.com",
    "ü" * 33 + "@example.com",  # 66 octets
    "a" * 20 + "@" + ".".join(["b" * 57] * 4) + ".com",  # 256
]


@pytest.mark.parametrize("to", NOT_ONE_ADDRESS)
def test_anything_but_exactly_one_address_is_refused(to: str) -> None:
    with pytest.raises(BadEmail) as caught:
        email_from_path(path(to=to), DOMAIN)
    assert caught.value.field == "to"


@pytest.mark.parametrize(
    ("text", "wire", "smtputf8"),
    [
        ("bob@example.com", "bob@example.com", False),
        ("bob+tag@example.com", "bob+tag@example.com", False),
        ("o'brien@example.com", "o'brien@example.com", False),
        ("a" * 64 + "@example.com", "a" * 64 + "@example.com", False),
        ("bob@workshop.test", "bob@workshop.test", False),
        ("bob@bücher.example", "bob@xn--bcher-kva.example", False),
        ("bob@xn--bcher-kva.example", "bob@xn--bcher-kva.example", False),
        ("jörg@bücher.example", "jörg@xn--bcher-kva.example", True),
    ],
)
def test_an_address_has_a_form_for_people_and_a_form_for_smtp(text: str, wire: str, smtputf8: bool) -> None:
    address = read_address(text)
    assert (address.wire, address.needs_smtputf8) == (wire, smtputf8)


addresses = st.emails() | st.builds(
    "{}@{}".format,
    st.text("abzAZ09.!#$%&'*+/=?^_`{|}~-@ ü\n\"", max_size=70),
    st.text("abcAB09.-ü_ ", max_size=20) | st.sampled_from(["example.com", "bücher.example", "xn--bcher-kva.example"]),
)


@given(addresses)
@example("a" * 64 + "@example.com")
@example("a" * 65 + "@example.com")
@example("postmaster@example.com")
@example("Postmaster@example.com")
@example("a." * 31 + "aa@" + ".".join(["b" * 60] * 3) + ".com")
@example("a." * 31 + "aa@" + ".".join(["b" * 60] * 3) + ".bbbbb.com")
def test_the_shortcut_for_plain_addresses_agrees_with_the_library(text: str) -> None:
    def outcome(read: Callable[[str], object]) -> object:
        try:
            return read(text)
        except BadEmail as error:
            return str(error)

    assert outcome(read_address) == outcome(_ask_library)


@given(st.text(max_size=30) | st.text("%0123456789abcdefABCDEF+/ü ", max_size=30))
def test_percent_decoding_is_strict(part: str) -> None:
    """Compared with the standard library's decoding, which is slow but correct."""

    def strict() -> object:
        try:
            return unquote_to_bytes(part.encode("utf-8", "surrogateescape")).decode()
        except UnicodeError:
            return "not UTF-8"

    def ours() -> object:
        try:
            return _decode("text", part)
        except BadEmail as error:
            return error.reason

    assert ours() == strict()


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ({"subject": "x" * 201}, "subject"),
        ({"subject": ""}, "subject"),
        ({"text": ""}, "text"),
        ({"to": ""}, "to"),
        ({"text": "x" * 100_001}, "text"),
    ],
)
def test_an_empty_or_too_long_part_is_refused_with_the_name_of_the_field(parts: dict[str, str], field: str) -> None:
    with pytest.raises(BadEmail) as caught:
        email_from_path(path(**parts), DOMAIN)
    assert caught.value.field == field


def test_a_subject_of_200_characters_is_not_too_long() -> None:
    assert len(email_from_path(path(subject="ü" * 200), DOMAIN).subject) == 200
