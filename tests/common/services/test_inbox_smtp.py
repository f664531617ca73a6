"""The embedded inbox: its SMTP server, and the faults that it injects."""

import asyncio
import json
from random import Random
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.services.inbox import smtp as smtp_module
from common.services.inbox.faults import BadFaults, Dial, Fate
from tests.support.inbox import Box, Conversation, conversation, mail
from tests.support.programs import LIMIT, until

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


async def test_greylisting_that_is_switched_off_and_on_remembers_its_pairs_until_the_inbox_is_emptied(
    box: Box, smtp: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise an email could be refused again after each switch, until its sender gives it up."""
    now = [0.0]
    monkeypatch.setattr("common.services.inbox.faults.time", SimpleNamespace(monotonic=lambda: now[0]))

    async def attempt() -> str:
        assert (await smtp.ask("MAIL FROM:<a@example.com>"))[0][:3] == "250"
        [reply] = await smtp.ask("RCPT TO:<b@example.com>")
        assert (await smtp.ask("RSET"))[0][:3] == "250"
        return reply[:3]

    await box.turn(greylist_seconds=300)
    assert await attempt() == "450"
    await box.turn(greylist_seconds=0)
    await box.turn(greylist_seconds=300)
    now[0] = 300.0
    assert await attempt() == "250"
    assert (await box.http.delete("/api/messages")).status == 200
    assert await attempt() == "450"


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
