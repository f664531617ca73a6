"""The embedded inbox: what it keeps and counts, its API, its faults, and broken input."""

import asyncio
import contextlib
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import ClientSession, web
from hypothesis import given
from hypothesis import strategies as st

from asynckit.ids import new_id
from asynckit.web import event_stream
from common.http import serving
from common.mail.emails import Email, read_address
from common.mail.message import build_message
from common.services.inbox import smtp as smtp_module
from common.services.inbox import store as store_module
from common.services.inbox import web as web_module
from common.services.inbox.faults import BadFaults, Dial, Fate
from common.services.inbox.parsing import decode_header, read_message
from common.services.inbox.smtp import Handler, SmtpServer
from common.services.inbox.store import Store, find_message_id
from common.services.inbox.web import create_app
from common.services.service import running
from tests.support.programs import LIMIT, ROOT, Program, open_users_lock, until, wait_until

XSS = "<img src=x onerror=alert(1)>"


@dataclass
class Box:
    """An inbox in this process."""

    store: Store
    dial: Dial
    smtp: SmtpServer
    app: web.Application
    http: ClientSession

    async def json(self, path: str) -> Any:
        response = await self.http.get(path)
        assert response.status == 200, await response.text()
        return await response.json()

    async def turn(self, **faults: Any) -> None:
        response = await self.http.put("/api/faults", json=faults)
        assert response.status == 200, await response.text()


class Conversation:
    """A minimal SMTP client that sends exactly the given bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    async def reply(self) -> str:
        """The next complete reply, its lines joined; "" if the server has closed the connection."""
        lines: list[str] = []
        async with asyncio.timeout(LIMIT):
            while not lines or lines[-1][3:4] == "-":
                try:
                    line = (await self.reader.readline()).decode()
                except ConnectionError:
                    line = ""
                if not line:
                    return ""
                lines.append(line.rstrip("\r\n"))
        return "\n".join(lines)

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def ask(self, *commands: str) -> list[str]:
        """Send the commands at once and return their replies."""
        self.write("".join(f"{command}\r\n" for command in commands).encode())
        return [await self.reply() for _ in commands]

    async def begin(self, raw: bytes, to: str = "alice@example.com", smtputf8: str = "") -> None:
        """Send a message, up to the final dot, without waiting for the reply."""
        replies = await self.ask(f"MAIL FROM:<workshop@example.com>{smtputf8}", f"RCPT TO:<{to}>", "DATA")
        assert [reply[:3] for reply in replies] == ["250", "250", "354"]
        self.write(raw.replace(b"\r\n.", b"\r\n..") + b".\r\n")

    async def send(self, raw: bytes, to: str = "alice@example.com", smtputf8: str = "") -> str:
        await self.begin(raw, to, smtputf8)
        return await self.reply()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


@contextlib.asynccontextmanager
async def conversation(port: int) -> AsyncIterator[Conversation]:
    talk = Conversation(*await asyncio.open_connection("127.0.0.1", port))
    try:
        assert (await talk.reply()).startswith("220 ")
        await talk.ask("EHLO test")
        yield talk
    finally:
        await talk.close()


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    store, dial = Store(), Dial(Random(1))
    smtp = SmtpServer(Handler(store, dial))
    await smtp.listen("127.0.0.1", 0)
    app = create_app(store, dial)
    runner = await serving.start(app, "127.0.0.1", 0)
    async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
        yield Box(store, dial, smtp, app, client)
    smtp.close()
    await until(lambda: not smtp._sessions)
    await runner.cleanup()


@pytest.fixture
async def smtp(box: Box) -> AsyncIterator[Conversation]:
    async with conversation(box.smtp.port) as talk:
        yield talk


def mail(message_id: str = "<1@test>", subject: str = "Hello", text: str = "How are you?") -> bytes:
    return f"From: workshop@example.com\r\nSubject: {subject}\r\nMessage-ID: {message_id}\r\n\r\n{text}\r\n".encode()


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


# SMTP


async def test_the_server_offers_these_extensions(box: Box, smtp: Conversation) -> None:
    [offer] = await smtp.ask("EHLO test")
    extensions = {line[4:].split()[0] for line in offer.splitlines()}
    assert {"PIPELINING", "SMTPUTF8", "8BITMIME", "SIZE"} <= extensions
    assert not {"STARTTLS", "AUTH"} & extensions


async def test_pipelined_commands_are_answered_in_order(box: Box, smtp: Conversation) -> None:
    envelope = ["MAIL FROM:<a@test>", "RCPT TO:<b@test>", "DATA"]
    smtp.write(
        "\r\n".join(["RSET", *envelope, "Message-ID: <1@test>", "", "one", ".", "RCPT TO:<x@test>", ""]).encode()
    )
    smtp.write("\r\n".join([*envelope, "Message-ID: <2@test>", "", "..two", ".", "NOOP", ""]).encode())
    codes = [(await smtp.reply())[:3] for _ in range(11)]
    assert codes == ["250", "250", "250", "354", "250", "503", "250", "250", "354", "250", "250"]
    assert [m["text"] for m in await box.json("/api/messages")] == [".two", "one"]


async def test_an_address_in_utf_8_is_accepted(box: Box, smtp: Conversation) -> None:
    assert (await smtp.send(mail(), to="jürgen@example.com", smtputf8=" SMTPUTF8"))[:3] == "250"
    [shown] = await box.json("/api/messages")
    assert shown["to"] == "jürgen@example.com"


@pytest.mark.parametrize(
    "line", [b"\xff\xfe\r\n", b"RCPT TO:<\r\n", b"MAIL FROM:<@@@>\r\n", b"x" * 5000 + b"\r\n", b"\r\n"]
)
async def test_invalid_commands_are_refused_and_the_session_goes_on(smtp: Conversation, line: bytes) -> None:
    smtp.write(line)
    assert (await smtp.reply())[:1] == "5"
    assert (await smtp.ask("RSET"))[0][:3] == "250"
    assert (await smtp.send(mail()))[:3] == "250"


# Faults


async def test_a_change_of_the_faults_is_merged_and_answered_with_the_new_state(box: Box) -> None:
    works = {"latency_ms": 0, "refuse_rate": 0, "refuse_code": 451, "hang_rate": 0, "lose_reply_rate": 0}
    works |= {"greylist_seconds": 0, "messages_per_session": 0}
    assert await box.json("/api/faults") == works
    await box.turn(latency_ms=5)
    response = await box.http.put("/api/faults", json={"refuse_rate": 0.25, "refuse_code": 550})
    turned = works | {"latency_ms": 5, "refuse_rate": 0.25, "refuse_code": 550}
    assert await response.json() == await box.json("/api/faults") == turned


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"latency_ms": -1}', "latency_ms"),
        ('{"latency_ms": 600001}', "latency_ms"),
        ('{"latency_ms": "5"}', "latency_ms"),
        ('{"latency_ms": 1.5}', "latency_ms"),
        ('{"refuse_rate": 1.01}', "refuse_rate"),
        ('{"greylist_seconds": -1}', "greylist_seconds"),
        ('{"greylist_seconds": 86401}', "greylist_seconds"),
        ('{"greylist_seconds": "300"}', "greylist_seconds"),
        ('{"messages_per_session": 2.5}', "messages_per_session"),
        ('{"messages_per_session": true}', "messages_per_session"),
        ('{"messages_per_session": 10001}', "messages_per_session"),
        ('{"hang_rate": true}', "hang_rate"),
        ('{"lose_reply_rate": 1e999}', "body"),
        ('{"lose_reply_rate": null}', "lose_reply_rate"),
        ('{"refuse_code": 450}', "refuse_code"),
        ('{"latency": 5}', "latency"),
        ('{"latency_ms": 5, "hang_rate": 2}', "hang_rate"),
        ("[]", "body"),
        ("{", "body"),
        ("NaN", "body"),
        ("", "body"),
    ],
)
async def test_an_invalid_change_names_the_field_and_changes_nothing(box: Box, body: str, field: str) -> None:
    before = await box.json("/api/faults")
    response = await box.http.put("/api/faults", data=body)
    assert response.status == 400
    error = (await response.json())["error"]
    assert error["field"] == field
    assert error["reason"]
    assert await box.json("/api/faults") == before


async def test_latency_delays_the_reply_and_not_the_email(box: Box, smtp: Conversation) -> None:
    await box.turn(latency_ms=10)
    assert (await smtp.send(mail("<1@test>")))[:3] == "250"
    await box.turn(latency_ms=600_000)
    await smtp.begin(mail("<2@test>"))
    reply = asyncio.create_task(smtp.reply())
    await until(lambda: box.store.stats()["received"] == 2)
    assert not reply.done()
    reply.cancel()


@pytest.mark.parametrize("code", [451, 550])
async def test_a_refused_email_is_not_kept_and_the_session_goes_on(box: Box, smtp: Conversation, code: int) -> None:
    await box.turn(refuse_rate=1, refuse_code=code)
    assert (await smtp.send(mail()))[:3] == str(code)
    assert await box.json("/api/stats") == {"received": 0, "unique": 0, "duplicates": 0}
    await box.turn(refuse_rate=0)
    assert (await smtp.send(mail()))[:3] == "250"


async def test_421_ends_the_connection(box: Box, smtp: Conversation) -> None:
    await box.turn(refuse_rate=1, refuse_code=421)
    assert (await smtp.send(mail()))[:3] == "421"
    assert await smtp.reply() == ""
    assert box.store.stats()["received"] == 0


async def test_with_hang_rate_no_reply_comes_until_the_client_disconnects(box: Box, smtp: Conversation) -> None:
    await box.turn(hang_rate=1)
    await smtp.begin(mail("<1@test>"))
    waiting = asyncio.create_task(smtp.reader.read())
    await box.turn(hang_rate=0)
    async with conversation(box.smtp.port) as another:
        assert (await another.send(mail("<2@test>")))[:3] == "250"
    assert not waiting.done()
    assert [m["message_id"] for m in await box.json("/api/messages")] == ["<2@test>"]
    await smtp.close()
    assert await waiting == b""
    await until(lambda: not box.smtp._sessions)


async def test_an_email_whose_reply_is_lost_is_kept(box: Box, smtp: Conversation) -> None:
    await box.turn(lose_reply_rate=1)
    assert await smtp.send(mail()) == ""
    assert box.store.stats()["received"] == 1


async def test_a_greylisted_recipient_is_refused_until_the_time_has_passed(
    box: Box, smtp: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("common.services.inbox.faults.time", SimpleNamespace(monotonic=lambda: now[0]))
    await box.turn(greylist_seconds=300)
    for now[0] in (1000.0, 1299.0):
        assert (await smtp.ask("MAIL FROM:<a@example.com>"))[0][:3] == "250"
        assert (await smtp.ask("RCPT TO:<b@example.com>"))[0][:3] == "450"
        assert (await smtp.ask("RSET"))[0][:3] == "250"
    now[0] = 1300.0
    assert (await smtp.ask("MAIL FROM:<a@example.com>"))[0][:3] == "250"
    assert (await smtp.ask("RCPT TO:<b@example.com>"))[0][:3] == "250"
    assert (await smtp.ask("RCPT TO:<another@example.com>"))[0][:3] == "450"


async def test_a_session_without_a_command_is_closed(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp_module, "IDLE_SECONDS", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", box.smtp.port)
    async with asyncio.timeout(LIMIT):
        assert (await reader.readline()).startswith(b"220 ")
        assert await reader.read() == b""
    writer.close()


async def test_a_session_that_hangs_on_request_stays_open(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp_module, "IDLE_SECONDS", 0.3)
    await box.turn(hang_rate=1)
    async with conversation(box.smtp.port) as smtp:
        await smtp.begin(mail())
        waiting = asyncio.create_task(smtp.reader.read())
        _, pending = await asyncio.wait([waiting], timeout=1.0)
        assert pending, "longer than the limit"
    assert await waiting == b""


async def test_beyond_the_limit_a_new_session_replaces_the_oldest_idle_one(box: Box) -> None:
    box.smtp._connections.limit = 2
    async with conversation(box.smtp.port) as first, conversation(box.smtp.port) as second:
        assert (await first.ask("EHLO x"))[0].startswith("250")
        await second.ask("EHLO x", "MAIL FROM:<a@example.com>")
        async with conversation(box.smtp.port) as third:
            assert (await third.ask("EHLO x", "MAIL FROM:<a@example.com>"))[1].startswith("250")
            assert await first.reply() == "", "the idle one is closed"
            reader, writer = await asyncio.open_connection("127.0.0.1", box.smtp.port)
            async with asyncio.timeout(LIMIT):
                assert await reader.read() == smtp_module.TOO_MANY
            writer.close()


async def test_a_session_at_its_limit_accepts_no_more_but_a_new_one_does(box: Box, smtp: Conversation) -> None:
    await box.turn(messages_per_session=2)
    assert [(await smtp.send(mail()))[:3] for _ in range(2)] == ["250", "250"]
    assert (await smtp.ask("MAIL FROM:<a@example.com>"))[0][:3] == "452"
    async with conversation(box.smtp.port) as another:
        assert (await another.send(mail()))[:3] == "250"
    assert box.store.stats()["received"] == 3


def test_rates_are_probabilities() -> None:
    dial = Dial(Random(2))
    dial.turn(b'{"refuse_rate": 0.5, "hang_rate": 0.5, "lose_reply_rate": 0.5}')
    fates = [dial.fate() for _ in range(8000)]
    for fate, share in ((Fate.REFUSE, 0.5), (Fate.HANG, 0.25), (Fate.LOSE_REPLY, 0.125), (Fate.ACCEPT, 0.125)):
        assert fates.count(fate) / 8000 == pytest.approx(share, abs=0.03)


@given(
    st.binary(max_size=100)
    | st.recursive(st.integers() | st.floats() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
def test_any_body_is_accepted_or_raises_bad_faults(body: bytes) -> None:
    with pytest.raises(BadFaults):
        Dial().turn(body)


# HTTP


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 200),
        ("GET", "/health", {}, 200),
        ("GET", "/", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"}, 200),  # a link on a strategy's page
        ("GET", "/api/messages", {"Host": "localhost:8025"}, 200),
        ("GET", "/api/messages", {"Host": "evil.test"}, 403),
        ("GET", "/api/messages", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("GET", "/api/events", {"Origin": "http://evil.test"}, 403),
        ("DELETE", "/api/messages", {"Origin": "http://evil.test"}, 403),
        ("DELETE", "/api/messages", {"Origin": "http://127.0.0.1:8080"}, 403),
        ("DELETE", "/api/messages", {"Sec-Fetch-Site": "same-site"}, 403),
        ("DELETE", "/api/messages", {"Sec-Fetch-Site": "same-origin"}, 200),
        ("PUT", "/api/faults", {"Sec-Fetch-Site": "same-site"}, 403),
        ("PUT", "/api/faults", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("PUT", "/api/faults", {"Origin": "null"}, 403),
        ("POST", "/api/messages", {}, 405),
        ("DELETE", "/api/stats", {}, 405),
        ("GET", "/nowhere", {}, 404),
        ("GET", "/assets/../inbox.html", {}, 404),
    ],
)
async def test_which_requests_are_answered(
    box: Box, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    box.store.add("a@test", ["b@test"], mail())
    response = await box.http.request(method, path, headers=headers)
    assert response.status == status
    if status >= 400:
        assert (await response.json())["error"]["reason"]
        assert box.store.stats()["received"] == 1


async def test_events_have_the_latest_stats_and_not_each_change(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_module, "EVENT_SECONDS", 0.1)
    response = await box.http.get("/api/events")
    assert response.content_type == "text/event-stream"
    assert await event(response.content) == {"received": 0, "unique": 0, "duplicates": 0}

    told: list[dict[str, int]] = []
    for i in range(1000):
        box.store.add("a@test", ["b@test"], mail(f"<{i}@test>"))
        await asyncio.sleep(0)
    while not told or told[-1]["received"] < 1000:
        told.append(await event(response.content))
    assert len(told) < 500

    box.store.empty()
    assert (await event(response.content))["received"] == 0
    response.close()


async def test_an_idle_event_stream_sends_keep_alives(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "SILENCE_SECONDS", 0.0)
    response = await box.http.get("/api/events")
    await event(response.content)
    async with asyncio.timeout(LIMIT):
        while await response.content.readline() != b":\n":
            pass
    response.close()


async def test_a_reader_that_disconnects_is_noticed_without_an_error(
    box: Box, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(web_module, "EVENT_SECONDS", 0.01)
    monkeypatch.setattr(event_stream, "SILENCE_SECONDS", 0.01)
    response = await box.http.get("/api/events")
    await event(response.content)
    readers = box.app[event_stream.READERS]
    assert len(readers) == 1
    response.close()
    async with asyncio.timeout(LIMIT):
        await asyncio.wait(set(readers))
    assert caplog.text == ""


async def event(stream: Any) -> Any:
    """The data of the next event."""
    async with asyncio.timeout(LIMIT):
        while not (line := await stream.readline()).startswith(b"data: "):
            assert line, "the stream ended"
    return json.loads(line[6:])


# The process


async def test_the_process_announces_itself_serves_and_stops_despite_open_connections(tmp_path: Path) -> None:
    with open_users_lock(tmp_path, "inbox"):
        program = Program([sys.executable, "-m", "common.services.inbox"], environment(tmp_path))
        try:
            facts = wait_until(lambda: running(tmp_path, "inbox"), f"the inbox runs: {program.output}")
            assert facts is not None
            assert facts["pid"] == program.process.pid
            url = f"http://127.0.0.1:{facts['inbox_port']}"
            async with conversation(facts["inbox_smtp_port"]) as talk, ClientSession() as http:
                assert (await talk.send(mail()))[:3] == "250"
                async with http.put(f"{url}/api/faults", json={"hang_rate": 1}) as response:
                    assert response.status == 200
                async with http.get(f"{url}/api/events") as events:
                    assert (await event(events.content))["received"] == 1
                    await talk.begin(mail())
                    assert program.stop(limit=LIMIT) == 0
                    assert await talk.reply() == ""
        finally:
            program.process.kill()
    assert [line.split(maxsplit=1)[1].split("(")[0] for line in program.lines[1:]] == ["stopping "]


@pytest.mark.parametrize("setting", ["INBOX_SMTP_PORT", "INBOX_PORT"])
def test_a_port_in_use_means_one_line_and_exit_2(tmp_path: Path, setting: str) -> None:
    with socket.socket() as taken, open_users_lock(tmp_path, "inbox"):
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        program = Program([sys.executable, "-m", "common.services.inbox"], environment(tmp_path) | {setting: port})
        try:
            wait_until(lambda: program.process.poll() is not None, "it ends")
        finally:
            program.stop(signal.SIGKILL)
    assert program.process.returncode == 2
    assert program.lines == [f"{setting}: port {port} on 127.0.0.1 is in use; choose another, or 0 for any free one"]


def environment(data_dir: Path) -> dict[str, str]:
    return {"INBOX_SMTP_PORT": "0", "INBOX_PORT": "0", "DATA_DIR": str(data_dir)}


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
