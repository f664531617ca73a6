"""The bytes that are sent: no input can add a header or a recipient to them."""

import asyncio
import email as stdlib_email
import email.policy
import re
from email.header import decode_header, make_header
from typing import cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.mail.attempt import Attempt
from common.mail.emails import BadEmail, Email, email_from_path, read_address
from common.mail.errors import Refused
from common.mail.message import HEADERS, build_message
from common.mail.smtp_conversation import Limits
from common.mail.smtp_session import SmtpSession

SENDER = read_address("workshop@example.com")


def build(subject: str = "Hello", text: str = "Hi", to: str = "bob@example.com") -> bytes:
    return build_message(Email("<id@example.com>", to, subject, text), SENDER, read_address(to))


def header(message: bytes, name: str) -> str:
    """One header as a mail reader shows it: unfolded and decoded."""
    block = message.partition(b"\r\n\r\n")[0].decode()
    [value] = re.findall(rf"^{name}: ([^\r\n]*(?:\r\n [^\r\n]*)*)", block, re.MULTILINE)
    return str(make_header(decode_header(value.replace("\r\n", ""))))


def test_an_email_has_exactly_these_headers() -> None:
    message = build("Hello", "Hi")
    assert re.sub(rb"Date: [^\r]+", b"Date: D", message) == (
        b"From: workshop@example.com\r\n"
        b"To: bob@example.com\r\n"
        b"Subject: Hello\r\n"
        b"Message-ID: <id@example.com>\r\n"
        b"Date: D\r\n"
        b"MIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: 7bit\r\n"
        b"\r\n"
        b"Hi\r\n"
    )


@pytest.mark.parametrize(
    "subject",
    [
        "=?UTF-8?Q?=0A?=Bcc: evil@x.com",
        "=?UTF-8?Q?Hello?=",
        "=?utf-8?b?SGVsbG8=?= there",
        "=?",
        "?=",
        "=?x?=",
        "ü" * 200,
        "\U0001f600" * 100,
        "x" * 200,
        " leading",
        "trailing ",
        " ",
        "Bcc: evil@x.com",
    ],
)
def test_a_subject_arrives_unchanged(subject: str) -> None:
    assert header(build(subject), "Subject") == subject


@pytest.mark.parametrize(
    "text",
    [
        ".",
        "\n.\n",
        "\n.\r\nMAIL FROM:<evil@x.com>",
        "x\r\n.\r\nMAIL FROM:<evil@x.com>",
        "\r.\r",
        "..",
        "ü\n.\n",
        "x" * 5000,
    ],
)
def test_a_text_arrives_unchanged(text: str) -> None:
    sent = on_the_wire(Email("<id@example.com>", "bob@example.com", "Hello", text))
    end = sent.data.find(b"\r\n.\r\n")
    assert end == len(sent.data) - 5, "there are bytes after the end of the message"
    assert not re.search(rb"(?<!\r)\n|\r(?!\n)", sent.data), "a bare CR or LF, which servers treat differently"
    assert all(len(line) <= 998 for line in sent.data.split(b"\r\n"))
    received = stdlib_email.message_from_bytes(unstuffed(sent.data), policy=email.policy.SMTP)
    body = cast(bytes, received.get_payload(decode=True)).decode()
    if received["Content-Transfer-Encoding"] == "7bit":
        body = body.removesuffix("\r\n")  # the end of the last line, which SMTP needs
    assert body == text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")


def test_an_international_domain_is_sent_as_its_a_label() -> None:
    sent = on_the_wire(Email("<id@example.com>", "bob@bücher.example", "Hello", "Hi"))
    assert b"RCPT TO:<bob@xn--bcher-kva.example>\r\n" in sent.envelope
    assert b"\r\nTo: bob@xn--bcher-kva.example\r\n" in sent.data
    assert b"SMTPUTF8" not in sent.envelope


def test_a_utf_8_local_part_is_sent_if_the_server_offers_smtputf8() -> None:
    sent = on_the_wire(Email("<id@example.com>", "jörg@example.com", "Hello", "Hi"))
    assert b"MAIL FROM:<workshop@example.com> SMTPUTF8\r\nRCPT TO:<j\xc3\xb6rg@example.com>\r\n" in sent.envelope


def test_a_utf_8_local_part_is_refused_permanently_without_smtputf8() -> None:
    with pytest.raises(Refused, match="SMTPUTF8"):
        on_the_wire(Email("<id@example.com>", "jörg@example.com", "Hello", "Hi"), extensions=set())


any_text = st.text(max_size=300)
mail_like = st.lists(
    st.sampled_from(
        [
            "\r\n",
            "\n",
            "\r",
            ".",
            "Bcc: evil@x.com",
            "=?UTF-8?Q?=0A?=",
            "=?utf-8?b?Cg==?=",
            "MAIL FROM:<e@x>",
            ",",
            ";",
            "<",
            ">",
            "@",
            '"',
            "(",
            ")",
            " ",
            "\x00",
            "\u2028",
            "\x85",
            "\ud800",
            "ü",
            "a",
            "%0a",
            "\\",
        ]
    )
    | st.text(max_size=5),
    max_size=20,
).map("".join)
parts = any_text | mail_like


@given(to=st.just("bob@example.com") | st.emails() | mail_like, subject=parts, text=parts)
@example(to="bob@example.com", subject="=?UTF-8?Q?=0A?=Bcc: evil@x", text="x")
@example(to="a@b.com\r\nRCPT TO:<evil@x.com>", subject="s", text="t")
def test_any_path_leads_to_one_recipient_and_only_our_headers(to: str, subject: str, text: str) -> None:
    path = "/" + "/".join(
        "".join(f"%{byte:02X}" for byte in part.encode("utf-8", "surrogatepass")) for part in (to, subject, text)
    )
    try:
        email = email_from_path(path, "example.com")
    except BadEmail:
        return
    check_the_wire(email)


@given(to=st.emails(), subject=parts, text=parts)
def test_an_unchecked_email_cannot_add_headers_or_recipients(to: str, subject: str, text: str) -> None:
    """The second line of defence: an `Email` that our reading functions would have refused."""
    try:
        check_the_wire(Email("<id@example.com>", to, subject, text))
    except (BadEmail, ValueError):  # a refusal is correct, too
        return


def check_the_wire(email: Email) -> None:
    sent = on_the_wire(email)
    recipient = read_address(email.to)
    option = b" SMTPUTF8" if recipient.needs_smtputf8 else b""
    assert sent.envelope == (
        b"MAIL FROM:<workshop@example.com>%s\r\nRCPT TO:<%s>\r\nDATA\r\n" % (option, recipient.wire.encode())
    )
    assert sent.data.endswith(b"\r\n.\r\n")
    assert sent.data.count(b"\r\n.\r\n") == 1
    block = unstuffed(sent.data).partition(b"\r\n\r\n")[0]
    lines = re.split(rb"\r\n(?! )", block)  # a line that begins with a space continues the line before it
    assert [line.partition(b":")[0].decode() for line in lines] == list(HEADERS)
    assert b"\r" not in block.replace(b"\r\n", b"")
    assert b"\n" not in block.replace(b"\r\n", b"")
    assert lines[1] == b"To: " + recipient.wire.encode()


class Sent:
    def __init__(self, written: list[bytes]) -> None:
        self.envelope, self.data = written


def on_the_wire(email: Email, extensions: set[str] = frozenset({"pipelining", "smtputf8"})) -> Sent:  # type: ignore[assignment]
    """All bytes that the mailer writes to the connection for this email."""

    async def send() -> Sent:
        transport = RecordingTransport()
        session = SmtpSession(cast(asyncio.Transport, transport), extensions, Limits())
        transport.replies = lambda data: session.data_received(data)
        recipient = read_address(email.to)
        await session.send(Attempt(SENDER, recipient, build_message(email, SENDER, recipient)))
        return Sent(transport.written)

    return asyncio.run(send())


class RecordingTransport:
    """A connection to a server that accepts everything."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.replies = lambda data: None

    def write(self, data: bytes) -> None:
        self.written.append(data)
        answer = b"250 ok\r\n250 ok\r\n354 go on\r\n" if len(self.written) == 1 else b"250 kept\r\n"
        asyncio.get_running_loop().call_soon(self.replies, answer)


def unstuffed(data: bytes) -> bytes:
    return data.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.")
