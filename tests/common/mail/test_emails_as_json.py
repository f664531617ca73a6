"""Emails as JSON, and their ids."""

import json
import re
import time
from contextlib import suppress
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynckit.ids import made_at, new_id
from common.mail.emails import (
    BadEmail,
    Email,
    email_from_json,
    email_from_members,
)

DOMAIN = "example.com"


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
