"""Reading an email from a path and from JSON: what is accepted and what is refused."""

import json
import re
import time
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import quote, unquote_to_bytes
from uuid import RFC_4122, UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asynckit.ids import made_at, new_id
from common.mail.emails import (
    BadEmail,
    Email,
    _ask_library,
    _decode,
    email_from_json,
    email_from_members,
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


def test_an_email_as_json_is_read_back_unchanged() -> None:
    email = Email(new_id(DOMAIN), "bob@example.com", "Grüße \U0001f600", "one\ntwo\tthree")
    assert email_from_json(email.to_json(), DOMAIN) == email
    assert b" " not in Email("<a@b>", "bob@example.com", "s", "t").to_json()


def test_a_message_of_another_program_without_an_id_gets_one() -> None:
    email = email_from_json('{"to": "bob@example.com", "subject": "", "text": "", "extra": [1]}', DOMAIN)
    assert email.id.endswith("@example.com>")


OTHER_IDS = [
    "abc123", "", "0190a3b4-7c3d-7e12-9f00-0123456789ab", "<a@b>\r\nBcc: x@y.z", "<%s@b>" % ("a" * 300),
    5, 2**80, 1.5, True, None, [1], {"a": [None]},
]  # fmt: skip


@pytest.mark.parametrize("other", OTHER_IDS, ids=lambda other: repr(other)[:20])
def test_with_an_id_of_another_program_the_message_id_is_the_same_at_every_attempt(other: object) -> None:
    members = {"to": "bob@example.com", "subject": "s", "text": "t", "id": other}
    email = email_from_members(json.loads(json.dumps(members)), DOMAIN)
    again = email_from_members(dict(reversed(members.items())), DOMAIN)
    assert email == again
    assert re.fullmatch(r"<[a-z0-9-]+@example\.com>", email.id)
    assert email_from_json(json.dumps(members), DOMAIN).to == "bob@example.com"
    assert email_from_members({**members, "text": "another"}, DOMAIN).id != email.id


RUBBISH = {
    "nothing": (b"", "email"),
    "not JSON": (b"hello", "email"),
    "pickle": (b"\x80\x04\x95\x1f\x00\x00\x00", "email"),
    "not UTF-8": (b'{"to": "\xff"}', "email"),
    "NaN": (b'{"to": NaN}', "email"),
    "deep nesting": (b"[" * 100_000, "email"),
    "a list": (b"[]", "email"),
    "null": (b"null", "email"),
    "no members": (b"{}", "to"),
    "a number as text": (b'{"to": "bob@example.com", "subject": "s", "text": 5}', "text"),
    "line break in the subject": (b'{"to": "bob@example.com", "subject": "a\\nBcc: x@y.z", "text": ""}', "subject"),
    "a surrogate": (b'{"to": "bob@example.com", "subject": "\\ud800", "text": ""}', "email"),
    "NUL in the text": (b'{"to": "bob@example.com", "subject": "", "text": "\\u0000"}', "text"),
    "10 MB": (b'{"to": "bob@example.com", "subject": "", "text": "%s"}' % (b"x" * 10_000_000), "text"),
}


@pytest.mark.parametrize(("data", "field"), RUBBISH.values(), ids=RUBBISH.keys())
def test_invalid_json_of_another_program_raises_bad_email(data: bytes, field: str) -> None:
    with pytest.raises(BadEmail) as caught:
        email_from_json(data, DOMAIN)
    assert caught.value.field == field


@given(st.binary(max_size=300))
def test_any_bytes_are_an_email_or_raise_bad_email(data: bytes) -> None:
    with suppress(BadEmail):
        email_from_json(data, DOMAIN)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    st.fixed_dictionaries(
        {}, optional={"id": json_values, "to": json_values, "subject": json_values, "text": json_values}
    )
)
def test_any_json_object_is_an_email_or_raises_bad_email(members: dict[str, object]) -> None:
    with suppress(BadEmail):
        email_from_json(json.dumps(members), DOMAIN)


def test_an_id_contains_the_time_of_its_creation() -> None:
    before = time.time()
    email_id = new_id("example.com")
    made = made_at(email_id)
    assert made is not None
    assert before - 0.001 <= made <= time.time()
    assert UUID(email_id[1:33]).version == 7
    assert UUID(email_id[1:33]).variant == RFC_4122


def test_ids_do_not_repeat_and_sort_by_age() -> None:
    ids = [new_id("example.com") for _ in range(10_000)]
    assert len(set(ids)) == 10_000
    moments = [made_at(email_id) for email_id in ids]
    assert moments == sorted(moments, key=lambda moment: moment or 0)


@pytest.mark.parametrize(
    "email_id", ["", "<abc@example.com>", f"<{UUID(int=0, version=4).hex}@example.com>", "0" * 33, "x" * 32]
)
def test_other_ids_contain_no_time(email_id: str) -> None:
    assert made_at(email_id) is None
