"""The embedded inbox: what it shows of an email, its list and its counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynckit.ids import new_id
from common.mail.emails import Email, read_address
from common.mail.message import build_message
from common.services.inbox import store as store_module
from common.services.inbox.parsing import decode_header, read_message
from common.services.inbox.store import Store, find_message_id
from tests.support.inbox import Box, Conversation, mail
from tests.support.programs import ROOT

XSS = "<img src=x onerror=alert(1)>"


# What is shown


async def test_an_email_of_ours_is_shown_unchanged(box: Box, smtp: Conversation) -> None:
    sender, recipient = read_address("workshop@example.com"), read_address("alice@example.com")
    email = Email(new_id("example.com"), "alice@example.com", "Hello", "How are you?")

    assert (await smtp.send(build_message(email, sender, recipient))).startswith("250")

    [shown] = await box.json("/api/messages")
    arrival = shown.pop("received_at")
    assert shown == {
        "message_id": email.id,
        "from": "workshop@example.com",
        "to": "alice@example.com",
        "subject": "Hello",
        "text": "How are you?",
        "copies": 1,
    }
    assert len(arrival) == len("2026-01-31T12:00:00.000Z")
    assert arrival.endswith("Z")


@pytest.mark.parametrize("subject", ["Grüße", "ä" * 200, "=?UTF-8?Q?=0A?=Bcc: evil@x", " a ", "a  =?x", "日本 🎉", XSS])
@pytest.mark.parametrize("text", ["Grüße", ".", "a\n.\nMAIL FROM:<x@y>", "ends\n\n", "ü\n", "x" * 5000, XSS])
def test_these_subjects_and_texts_are_shown_unchanged(subject: str, text: str) -> None:
    address = read_address("alice@example.com")
    shown = read_message(build_message(Email("<1@test>", address.text, subject, text), address, address))
    assert (shown.subject, shown.text) == (subject, text)


@given(st.text(min_size=1, max_size=200), st.text(max_size=500))
def test_any_subject_and_text_are_shown_unchanged(subject: str, text: str) -> None:
    subject = "".join(c for c in subject if c.isprintable()) or "x"
    text = text.encode(errors="replace").decode().replace("\r", "")
    address = read_address("alice@example.com")
    shown = read_message(build_message(Email("<1@test>", address.text, subject, text), address, address))
    assert (shown.subject, shown.text) == (subject, text)


@pytest.mark.parametrize(
    ("header", "shown"),
    [
        ("=?utf-8?q?a=0ABcc=3A_evil?=", "a\nBcc: evil"),  # a decoded word is only text
        ("=?utf-8?q?=3D=3Futf-8=3Fq=3Fx=3F=3D?=", "=?utf-8?q?x?="),  # decoded once
        ("=?utf-8?b?w6Q=?= \r\n =?ISO-8859-1?Q?=F6?= u", "äö u"),
        ("=?utf-8?b?w6Q?=", "ä"),  # padding forgotten
        ("=?utf-8?b?!!!?=", "=?utf-8?b?!!!?="),
        ("=?no-such?q?x?=", "=?no-such?q?x?="),
        ("=?utf-8?q?=FF?=", "=?utf-8?q?=FF?="),
        ("two\r\n lines", "two lines"),
    ],
)
def test_encoded_words_are_decoded_once_or_shown_raw(header: str, shown: str) -> None:
    assert decode_header(header) == shown


@pytest.mark.parametrize(
    ("raw", "subject", "text"),
    [
        (b"", "", ""),
        (b"\r\n", "", ""),
        (b"\r\nonly a body\r\n", "", "only a body"),
        (b"Subject: none", "none", ""),
        (b"no header at all\r\n", "", "no header at all"),
        (b"Subject: \xe4\xff\r\n\r\n\xe4\r\n", "äÿ", "ä"),
        ("Subject: ä\r\n\r\nä\r\n".encode(), "ä", "ä"),
        (b"Content-Type: text/plain; charset=no-such\r\n\r\n\xc3\xa4\r\n", "", "ä"),
        (b'Content-Type: text/plain; charset="a\0b"\r\n\r\nx\r\n', "", "x"),
        (b"Content-Type: text/plain; charset=rot13\r\n\r\nx\r\n", "", "x"),
        (b"Content-Type: text/plain; charset=utf-7\r\n\r\n+2AA-\r\n", "", "?"),  # half a surrogate pair
        (b"Content-Transfer-Encoding: base64\r\n\r\nSGVs!bG8\r\n", "", "Hello"),
        (b"Content-Transfer-Encoding: base64\r\n\r\nw6QK\r\n", "", "ä\n"),
        (b"Content-Transfer-Encoding: base64\r\n\r\nA\r\n", "", "A"),
        (b"Content-Type: multipart/mixed\r\n\r\nno boundary\r\n", "", ""),
        (
            b"Content-Type: multipart/alternative; boundary=B\r\n\r\n--B\r\nContent-Type: text/html\r\n\r\n<b>x</b>\r\n"
            b"--B\r\nContent-Type: text/plain\r\n\r\nplain\r\n--B--\r\n",
            "",
            "plain",
        ),
        (b"Content-Type: image/png\r\n\r\n\x89PNG\r\n", "", ""),
    ],
)
def test_broken_mail_is_shown_as_far_as_it_can_be_read(raw: bytes, subject: str, text: str) -> None:
    shown = read_message(raw)
    assert (shown.subject, shown.text) == (subject, text)


@given(st.binary(max_size=300), st.sampled_from([b"", b"Subject: ", b"Content-Type: ", b"Content-Transfer-Encoding: "]))
def test_parsing_never_fails(noise: bytes, header: bytes) -> None:
    raw = header + noise
    for text in read_message(raw):
        text.encode()
    (find_message_id(raw) or "").encode()


async def test_broken_mail_is_kept_counted_and_listed(box: Box, smtp: Conversation) -> None:
    for raw in (
        b"",
        b"\xff\xfe\r\n",
        b"Message-ID: <\xff@x>\r\nContent-Type: text/plain; charset=\xff\r\n\r\n\xff\r\n",
    ):
        assert (await smtp.send(raw)).startswith("250")
    shown = await box.json("/api/messages")
    assert len({message["message_id"] for message in shown}) == 3  # one without an id gets a new one
    assert shown[0]["message_id"] == r"<\xff@x>"


@pytest.mark.parametrize(
    ("raw", "message_id"),
    [
        (b"Message-ID: <a@b>\r\n\r\n", "<a@b>"),
        (b"X: y\r\nMESSAGE-id:\r\n <a@b> \r\nZ: \r\n\r\n", "<a@b>"),
        (b"X: y\r\n\r\nMessage-ID: <in the text>\r\n", None),
        (b"\r\nMessage-ID: <in the text>\r\n\r\n", None),
        (b"X-Message-ID: <a@b>\r\n\r\n", None),
        (b"Message-ID: \r\n\r\n", ""),
        (b"Message-ID: <first@x>\r\nMessage-ID: <second@x>\r\n\r\n", "<first@x>"),
    ],
)
def test_the_message_id_is_read_only_from_the_header(raw: bytes, message_id: str | None) -> None:
    assert find_message_id(raw) == message_id


async def test_markup_is_delivered_as_text(box: Box, smtp: Conversation) -> None:
    assert (await smtp.send(f"From: {XSS}\r\nSubject: {XSS}\r\nMessage-ID: {XSS}\r\n\r\n{XSS}\r\n".encode()))[
        :3
    ] == "250"
    response = await box.http.get("/api/messages")
    assert response.content_type == "application/json"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    [shown] = await response.json()
    assert [shown[name] for name in ("from", "subject", "message_id", "text")] == [XSS] * 4
    page = await box.http.get("/")
    assert page.headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert XSS not in await page.text()


@pytest.mark.parametrize(
    "script", ["common/services/inbox/pages/assets/inbox.js", "common/http/pages/assets/strategy.js"]
)
def test_the_pages_never_use_text_as_html(script: str) -> None:
    source = (ROOT / script).read_text()
    assert "textContent" in source
    assert not any(word in source for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write"))


# The list, the counts


async def test_the_list_has_the_newest_first_up_to_the_limit(box: Box, smtp: Conversation) -> None:
    for i in range(60):
        await smtp.send(mail(f"<{i}@test>"))
    assert [m["message_id"] for m in await box.json("/api/messages?limit=2")] == ["<59@test>", "<58@test>"]
    assert len(await box.json("/api/messages")) == 50
    assert len(await box.json("/api/messages?limit=10000")) == 60


@pytest.mark.parametrize("limit", ["0", "-1", "10001", "x", "", "1.5", "٣", "9" * 5000])
async def test_a_bad_limit_is_refused(box: Box, limit: str) -> None:
    response = await box.http.get("/api/messages", params={"limit": limit})
    assert response.status == 400
    assert (await response.json())["error"]["field"] == "limit"


async def test_filters_select_exact_matches(box: Box, smtp: Conversation) -> None:
    await smtp.send(mail("<1@test>"), to="alice@example.com")
    await smtp.send(mail("<2+x@test>"), to="bob@example.com")
    for params, found in (
        ({"to": "bob@example.com"}, ["<2+x@test>"]),
        ({"to": "bob"}, []),
        ({"message_id": "<1@test>"}, ["<1@test>"]),
        ({"message_id": "<2+x@test>", "to": "alice@example.com"}, []),
    ):
        response = await box.http.get("/api/messages", params=params)
        assert [m["message_id"] for m in await response.json()] == found


async def test_several_recipients_are_one_email(box: Box, smtp: Conversation) -> None:
    await smtp.ask("MAIL FROM:<>", "RCPT TO:<alice@example.com>", "RCPT TO:<bob@example.com>", "DATA")
    smtp.write(b"Subject: no From\r\n\r\n.\r\n")
    assert (await smtp.reply())[:3] == "250"
    [shown] = await box.json("/api/messages?to=bob@example.com")
    assert shown["to"] == "alice@example.com, bob@example.com"
    assert shown["from"] == "<>"


async def test_copies_are_listed_once_at_the_position_of_the_latest(box: Box, smtp: Conversation) -> None:
    for message_id in ("<1@test>", "<2@test>", "<1@test>", "<1@test>"):
        await smtp.send(mail(message_id))
    assert [(m["message_id"], m["copies"]) for m in await box.json("/api/messages")] == [
        ("<1@test>", 3),
        ("<2@test>", 1),
    ]
    assert await box.json("/api/stats") == {"received": 4, "unique": 2, "duplicates": 2}


async def test_emptying_resets_the_counts(box: Box, smtp: Conversation) -> None:
    await smtp.send(mail())
    response = await box.http.delete("/api/messages")
    nothing = {"received": 0, "unique": 0, "duplicates": 0}
    assert (response.status, await response.json()) == (200, nothing)
    assert await box.json("/api/messages") == []
    await smtp.send(mail())
    assert await box.json("/api/stats") == {"received": 1, "unique": 1, "duplicates": 0}


def test_the_newest_are_kept_and_all_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "KEEP", 3)
    store = Store()
    for i in [*range(10), 0]:
        store.add("a@test", ["b@test"], mail(f"<{i}@test>"))
    assert [message.id for message in store.newest()] == ["<0@test>", "<9@test>", "<8@test>"]
    assert store.stats() == {"received": 11, "unique": 10, "duplicates": 1}
    assert store.copies("<0@test>") == 2


def test_large_emails_replace_older_ones_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "KEEP_BYTES", 3000)
    store = Store()
    for i in [1, 2, 3, 3, 3]:
        store.add("a@test", ["b@test"], mail(f"<{i}@test>", text="x" * 1000))
    assert [message.id for message in store.newest()] == ["<3@test>", "<2@test>"]
    store.add("a@test", ["b@test"], mail("<4@test>", text="x" * 5000))
    assert store.newest() == []
    assert store.stats()["unique"] == 4


@pytest.mark.parametrize(
    "attached",
    [
        b"Content-Type: text/plain\r\nContent-Disposition: attachment; filename=a.txt\r\n\r\nattached\r\n",
        b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\nContent-Type: text/plain\r\n\r\nattached\r\n",
    ],
)
def test_an_attachment_is_not_the_text(attached: bytes) -> None:
    html = b"Content-Type: text/html\r\n\r\n<p>mine</p>\r\n"
    parts = b"--b\r\n" + html + b"--b\r\n" + attached + b"--b--\r\n"
    assert "mine" in read_message(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + parts).text


@pytest.mark.parametrize("header", [b"", b"Content-Type: text/plain; charset=utf-8\r\n"])
def test_one_invalid_byte_affects_only_itself(header: bytes) -> None:
    assert read_message(header + b"\r\nGr\xc3\xbc\xc3\x9fe\xff!\r\n").text == "Grüße\ufffd!"
