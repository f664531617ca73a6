"""The email that all six strategies send, and how it is read: from a URL path, or from another program's JSON.

The functions here do not trust their input. An `Email` that they return has exactly one recipient, and no control
characters in its address, subject and id. So the code that uses it (the mail library, the log, a terminal) is safe.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson
from yarl import URL

from asynckit.ids import new_id

FIELDS = ("to", "subject", "text")
MAX_SUBJECT = 200  # characters
MAX_TEXT = 100_000  # characters; a URL holds far less, a message from another program may hold more
MAX_ID = 250  # characters

# Characters that a terminal or a mail parser could take for structure: the control characters (C0, DEL, C1 with
# U+0085), the Unicode line and paragraph separators, and halves of surrogate pairs.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# The text of a message from another program may have line breaks and tabs.
_CONTROL_IN_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# RFC 5322 dot-atom, in lower case: the library changes the case of some local parts ("Postmaster").
_DOT_ATOM = re.compile(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
# RFC 5322 msg-id, without its obsolete forms and quoted parts.
_MESSAGE_ID = re.compile(r"<[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]+@[A-Za-z0-9.:\[\]_-]+>")


class BadEmail(ValueError):
    """The input is not a valid email: `field` is "to", "subject", "text" or "email", `reason` says what is wrong."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Address:
    """One mailbox, in the form for people and in the form for SMTP."""

    text: str
    """For people: normalised, an international domain in its own letters: `jo@bücher.example`."""
    wire: str
    """For SMTP: the domain as A-label: `jo@xn--bcher-kva.example`. A UTF-8 local part stays UTF-8."""
    needs_smtputf8: bool
    """The local part is not ASCII, so only a server that offers SMTPUTF8 (RFC 6531) can take it."""


@dataclass(frozen=True, slots=True)
class Email:
    """One email to one recipient. `id` is its Message-ID, the same in every attempt, so copies can be recognised."""

    id: str
    to: str
    subject: str
    text: str

    def to_dict(self) -> dict[str, str]:
        return {"to": self.to, "subject": self.subject, "text": self.text}

    def to_json(self) -> bytes:
        """The form in which processes pass an email to each other: compact JSON, UTF-8."""
        return orjson.dumps({"id": self.id, **self.to_dict()})


def read_address(text: str) -> Address:
    """Read exactly one address, without display name, comment, route, group or quotes. Raises BadEmail.

    The rules are the strict ones of email-validator: a local part of at most 64 octets, an address of at most 254 (RFC
    5321), a domain with a dot. DNS is not asked. The domain `test` and its subdomains are allowed for workshops.
    """
    return Address(text, text, needs_smtputf8=False) if _is_plain(text) else _ask_library(text)


def _is_plain(text: str) -> bool:
    """Whether this is an address that the library does not change.

    A call of the library takes 17 µs, as long as all other steps of accepting a request together. There are many
    addresses but few domains, so we check the local part here and cache the library's answer for the domain.
    """
    local_part, _, domain = text.rpartition("@")
    return (
        len(local_part) <= 64
        and _DOT_ATOM.fullmatch(local_part) is not None
        and len(text) <= 254
        and _is_plain_domain(domain)
    )


@lru_cache(maxsize=4096)
def _is_plain_domain(domain: str) -> bool:
    """Whether the library accepts this domain and does not change it."""
    try:
        return _ask_library(f"x@{domain}") == Address(f"x@{domain}", f"x@{domain}", needs_smtputf8=False)
    except BadEmail:
        return False


@lru_cache(maxsize=4096)
def _ask_library(text: str) -> Address:
    from email_validator import EmailNotValidError, validate_email  # here, because most services read no address

    _check_characters("to", text, _CONTROL)
    try:
        checked = validate_email(text, check_deliverability=False, strict=True, test_environment=True)
    except EmailNotValidError as error:
        raise BadEmail("to", str(error)) from None
    if len(checked.local_part.encode()) > 64:  # the library counts characters, SMTP counts octets
        raise BadEmail("to", "The part before the @-sign is longer than 64 octets.")
    wire = f"{checked.local_part}@{checked.ascii_domain}"
    if len(wire.encode()) > 254:
        raise BadEmail("to", "The email address is longer than 254 octets.")
    return Address(checked.normalized, wire, needs_smtputf8=checked.smtputf8)


def email_from_path(raw_path: str, domain: str, path_safe: str = "%") -> Email:
    """Read `/TO/SUBJECT/TEXT` as it is in the request line: percent-encoded, without the query.

    Bytes that are not UTF-8 are refused, while web frameworks replace them. `path_safe` is the same path, decoded by
    yarl. yarl does not decode "%2F", "%25" and bytes that are not UTF-8, so a `path_safe` without "%" is decoded
    correctly. `domain` becomes the domain of the new id. Raises BadEmail; raises ValueError if the path does not have
    three parts.
    """
    if "%" not in path_safe and raw_path.isascii():
        _, to, subject, text = path_safe.split("/")
    else:
        _, to, subject, text = (_decode(*pair) for pair in zip(("", *FIELDS), raw_path.split("/"), strict=True))
    for field, value in zip(FIELDS, (to, subject, text), strict=True):
        if not value:
            raise BadEmail(field, "is empty")
        _check_characters(field, value, _CONTROL)
    return _checked_email(new_id(domain), to, subject, text)


def email_from_json(data: bytes | str, domain: str) -> Email:
    """Read a JSON object `{"id", "to", "subject", "text"}` that any program may have written.

    Without an `id` the email gets a new one. The text may have line breaks and tabs. Other members are ignored. Raises
    BadEmail for anything else; `field` is "email" if the bytes are not a JSON object.
    """
    try:
        members = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadEmail("email", f"not JSON: {error}") from None
    if isinstance(members, dict) and members.get("id") in (None, ""):
        members["id"] = new_id(domain)
    return email_from_members(members, domain)


def email_from_members(members: object, domain: str) -> Email:
    """Read an email from parsed JSON, such as the arguments of a job.

    If there is no id, or it is not a valid Message-ID, the Message-ID is derived from all members. So it is the same at
    every attempt and in every process.
    """
    if not isinstance(members, dict):
        raise BadEmail("email", "not a JSON object")
    message_id = members.get("id")
    if not isinstance(message_id, str) or len(message_id) > MAX_ID or not _MESSAGE_ID.fullmatch(message_id):
        message_id = _derived_id(members, domain)
    return _checked_email(message_id, *[_text_member(members, field) for field in FIELDS])


def _derived_id(members: dict[str, Any], domain: str) -> str:
    """A Message-ID that depends only on the names and values of the members, not on their order or on white space."""
    try:
        canonical = orjson.dumps(members, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # nested more deeply than orjson can write
        canonical = orjson.dumps([str(members.get(field)) for field in FIELDS])
    return f"<job-{sha256(canonical).hexdigest()[:32]}@{domain}>"


def _text_member(members: dict[str, Any], field: str) -> str:
    value = members.get(field)
    if not isinstance(value, str):
        raise BadEmail(field, "missing, or not a string")
    _check_characters(field, value, _CONTROL_IN_TEXT if field == "text" else _CONTROL)
    return value


def _checked_email(message_id: str, to: str, subject: str, text: str) -> Email:
    if len(subject) > MAX_SUBJECT:
        raise BadEmail("subject", f"longer than {MAX_SUBJECT} characters")
    if len(text) > MAX_TEXT:
        raise BadEmail("text", f"longer than {MAX_TEXT} characters")
    return Email(message_id, to if _is_plain(to) else _ask_library(to).text, subject, text)


def _decode(field: str, part: str) -> str:
    if "%" not in part and part.isascii():
        return part
    # yarl decodes in C and keeps the "%" of bytes that are not UTF-8. So a result without "%" is decoded correctly.
    decoded = URL.build(path=f"/{part}", encoded=True).path[1:] if part.isascii() else "%"
    if "%" not in decoded:
        return decoded
    try:
        # The server has read the request line as UTF-8, with undecodable bytes as lone surrogates (PEP 383).
        return unquote_to_bytes(part.encode("utf-8", "surrogateescape")).decode("utf-8")
    except UnicodeError:
        raise BadEmail(field, "not UTF-8") from None


def _check_characters(field: str, value: str, forbidden: re.Pattern[str]) -> None:
    if value.isprintable():  # true for most strings and ten times faster; no forbidden character is printable
        return
    if found := forbidden.search(value):
        raise BadEmail(field, f"has the control character U+{ord(found[0]):04X}")
