"""The mail server of the lab that only counts."""

import asyncio
import smtplib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from lab.bench.mailer import send
from lab.harness import sinks
from lab.harness.processes import Lab
from lab.harness.sink import Sink
from lab.harness.sinks import lab_sink
from lab.load import smtp as load_smtp

# The sink


def test_the_sink_speaks_smtp_and_records_ids(lab: Lab) -> None:
    with lab_sink(lab) as sink:
        with smtplib.SMTP("127.0.0.1", sink.port, local_hostname="test") as smtp:
            for message_id in ("<1@example.com>", "<2@example.com>", "<2@example.com>"):
                message = f"Message-ID: {message_id}\r\nSubject: dots\r\n\r\n.\r\n..\r\nMessage-ID: <no@example.com>"
                smtp.sendmail("a@example.com", ["b@example.com"], message)
            assert smtp.has_extn("PIPELINING")
            assert smtp.docmd("VRFY", "x")[0] == 502
        assert sink.count() == 3
        assert sink.ids() == ["<1@example.com>", "<2@example.com>", "<2@example.com>"]


def test_the_sink_records_when_each_message_arrived_on_the_shared_clock(lab: Lab) -> None:
    with lab_sink(lab) as sink, smtplib.SMTP("127.0.0.1", sink.port, local_hostname="test") as smtp:
        moments = [time.perf_counter_ns()]
        for message_id in ("<1@example.com>", "<2@example.com>"):
            smtp.sendmail("a@example.com", ["b@example.com"], f"Message-ID: {message_id}\r\n\r\nhi")
            moments.append(time.perf_counter_ns())
        [(_, first), (_, second)] = sink.arrivals()
    assert moments[0] < first < moments[1] < second < moments[2]


class ScriptedSink:
    """A sink that returns these counts one after the other, and then always the last."""

    name, port = "scripted", 0

    def __init__(self, *counts: int) -> None:
        self.counts = list(counts)

    def count(self) -> int:
        return self.counts.pop(0) if len(self.counts) > 1 else self.counts[0]


@pytest.mark.parametrize("counts", [(3,), (0, 1, 1, 3, 3, 3), (2, 3, 4), (0, 1)])
def test_waiting_for_mail_ends_when_no_more_arrives(counts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("POLL_SECONDS", "QUIET_SECONDS"):
        monkeypatch.setattr(sinks, limit, 0.0)
    monkeypatch.setattr(sinks, "GIVE_UP_SECONDS", 0.05)
    sink = ScriptedSink(*counts)
    sinks.wait_for_mail(sink, expected=3)
    assert sink.count() >= min(3, counts[-1])


@asynccontextmanager
async def sink_session(sink: Sink) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    server = await sink.listen(0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    await reader.readline()
    yield reader, writer
    writer.close()
    await writer.wait_closed()
    server.close()


async def test_the_sink_answers_pipelined_commands_in_order() -> None:
    sink = Sink()
    async with sink_session(sink) as (reader, writer):
        # when a whole conversation with an empty message arrives in one write
        empty, other = b"DATA\r\n.\r\n", b"DATA\r\nMessage-Id: <1@b>\r\n\r\n..\r\n.\r\n"
        writer.write(b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\n" + empty + b"MAIL FROM:<>\r\n" + other + b"QUIT\r\n")
        replies = (await reader.read()).splitlines()
    # then every command has its reply
    assert [reply[:3] for reply in replies] == [b"250", b"250", b"354", b"250", b"250", b"354", b"250", b"221"]
    assert sink.ids == [b"", b"<1@b>"]


async def test_the_sink_takes_chunks() -> None:
    sink = Sink()
    async with sink_session(sink) as (reader, writer):
        writer.write(b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nBDAT 19\r\nMessage-Id: <1@b>\r\nBDAT 0 LAST\r\n")
        writer.write(b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nBDAT 23 LAST\r\nMessage-Id: <2@b>\r\nDATAQUIT\r\n")
        replies = (await reader.read()).splitlines()
    assert [reply[:3] for reply in replies] == [b"250"] * 7 + [b"221"]
    assert sink.ids == [b"<1@b>", b"<2@b>"]


@pytest.mark.parametrize("end", [b"DATA\r\n%b.\r\n", b"BDAT 25 LAST\r\n%b"])
async def test_the_sink_takes_what_comes_byte_by_byte(end: bytes) -> None:
    sink = Sink()
    async with sink_session(sink) as (reader, writer):
        for byte in end % b"Message-ID: <1@b>\r\n\r\nhi\r\n" + b"QUIT\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        await reader.read()
    assert sink.ids == [b"<1@b>"]


async def test_the_latency_is_added_once_per_round_trip() -> None:
    sink = Sink(latency=0.02)
    server = await sink.listen(0)
    port = server.sockets[0].getsockname()[1]
    times, _ = await load_smtp.converse(port, sessions=2, seconds=0.1, message=load_smtp.one_message())
    server.close()
    # two round trips per message, because the three commands of the envelope are pipelined
    assert min(times) >= 2 * 0.02e9 * 0.9
    assert len(sink.ids) == len(times)


def test_the_mailer_and_the_sink_have_the_same_count(lab: Lab) -> None:
    with lab_sink(lab) as sink:
        facts = send(lab, sink, senders=5, seconds=0.1)
        assert facts["sent"] == sink.count() == len(set(sink.ids())) > 0
