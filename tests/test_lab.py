"""The lab's instruments tell the truth. How fast anything is, no test says."""

import asyncio
import math
import smtplib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
from aiohttp import web

from common.web import Handler
from lab import load_smtp
from lab.bench import BENCHMARKS, chosen
from lab.bench_burst import compare
from lab.bench_mailer import send
from lab.children import ChildFailed, Lab, default_environment, python
from lab.figures import Rounds, Spread, in_turns, percentile
from lab.load import Load, email_requests, run_load
from lab.sink import Sink
from lab.sinks import LabSink, lab_sink


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab whose children are all gone after the test."""
    before = psutil.Process().children()
    yield Lab(tmp_path)
    assert psutil.Process().children() == before


# Figures


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([15, 20, 35, 40, 50], 30, 20),  # the example of the nearest-rank method in the literature
        ([15, 20, 35, 40, 50], 100, 50),
        ([15, 20, 35, 40, 50], 0, 15),
        ([50, 15, 40, 20, 35], 50, 35),  # in any order
        ([7], 99, 7),
        (range(1, 101), 99, 99),
        (range(1, 1001), 99, 990),
    ],
)
def test_a_percentile_is_the_value_of_the_nearest_rank(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == expected


def test_a_percentile_of_nothing_is_not_a_number() -> None:
    assert math.isnan(percentile([], 50))


def test_ratios_are_taken_round_by_round() -> None:
    # given a neighbour who halves the second round
    rounds = Rounds([{"rate": 10}, {"rate": 5}, {"rate": 12}], [{"rate": 20}, {"rate": 10}, {"rate": 20}])
    # then the rates spread and their ratio hardly does
    assert rounds.measured == Spread(10, 5, 12)
    assert rounds.ratio == Spread(0.5, 0.5, 0.6)


def test_what_is_compared_is_measured_in_turns() -> None:
    calls: list[str] = []

    def measure(name: str) -> dict[str, int]:
        calls.append(name)
        return {"rate": len(calls)}

    in_turns(lambda _: None, lambda: measure("ours"), lambda: measure("bare"), rounds=2)
    assert calls == ["ours", "bare", "ours", "bare"]


def test_the_ids_of_a_burst_are_compared_both_ways() -> None:
    account = compare(accepted=["a", "b", "c"], delivered=["a", "b", "b", "x"])
    assert account == {"accepted": 3, "delivered": 4, "lost": 1, "twice": 1, "unasked": 1}


def test_only_the_named_groups_are_chosen() -> None:
    assert chosen(["burst"]) == list(BENCHMARKS["burst"])
    assert len(chosen([])) == sum(len(group) for group in BENCHMARKS.values())


# The sink


def test_the_sink_speaks_smtp_and_remembers_ids(lab: Lab) -> None:
    with lab_sink(lab) as sink:
        with smtplib.SMTP("127.0.0.1", sink.port, local_hostname="test") as smtp:
            for message_id in ("<1@example.com>", "<2@example.com>", "<2@example.com>"):
                message = f"Message-ID: {message_id}\r\nSubject: dots\r\n\r\n.\r\n..\r\nMessage-ID: <no@example.com>"
                smtp.sendmail("a@example.com", ["b@example.com"], message)
            assert smtp.has_extn("PIPELINING")
            assert smtp.docmd("VRFY", "x")[0] == 502
        assert sink.count() == 3
        assert sink.ids() == ["<1@example.com>", "<2@example.com>", "<2@example.com>"]


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
        # when a whole conversation comes in one write, an empty message among it
        empty, other = b"DATA\r\n.\r\n", b"DATA\r\nMessage-Id: <1@b>\r\n\r\n..\r\n.\r\n"
        writer.write(b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\n" + empty + b"MAIL FROM:<>\r\n" + other + b"QUIT\r\n")
        replies = (await reader.read()).splitlines()
    # then every command has its reply
    assert [reply[:3] for reply in replies] == [b"250", b"250", b"354", b"250", b"250", b"354", b"250", b"221"]
    assert sink.ids == [b"", b"<1@b>"]


async def test_the_sink_takes_what_comes_byte_by_byte() -> None:
    sink = Sink()
    async with sink_session(sink) as (reader, writer):
        for byte in b"DATA\r\nMessage-ID: <1@b>\r\n\r\nhi\r\n.\r\nQUIT\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        await reader.read()
    assert sink.ids == [b"<1@b>"]


async def test_the_latency_counts_once_for_each_round_trip() -> None:
    sink = Sink(latency=0.02)
    server = await sink.listen(0)
    port = server.sockets[0].getsockname()[1]
    times, _ = await load_smtp.converse(port, sessions=2, seconds=0.1, message=load_smtp.one_message())
    server.close()
    # two round trips for each message, not three for the envelope alone
    assert min(times) >= 2 * 0.02e9 * 0.9
    assert len(sink.ids) == len(times)


def test_the_mailer_and_the_sink_count_the_same(lab: Lab) -> None:
    with lab_sink(lab) as sink:
        facts = send(lab, sink, senders=5, seconds=0.1)
        assert facts["sent"] == sink.count() == len(set(sink.ids())) > 0


# The load generator


@asynccontextmanager
async def web_server(handler: Handler) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_get("/{tail:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def test_the_load_generator_counts_answers_by_status() -> None:
    # given a server that refuses every third request
    seen: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.match_info["tail"])
        body = f'{{\n  "id": "<{len(seen)}@example.com>"\n}}'
        return web.Response(text=body, status=503 if len(seen) % 3 == 0 else 202)

    async with web_server(handle) as port:
        load = Load(email_requests(port, recipients=10), count=30, ids=True)
        await run_load(load, port, connections=4)
    result = load.result()
    assert result["statuses"] == {"202": 20, "503": 10}
    assert result["broken"] == 0
    assert sorted(result["ids"]) == sorted(f"<{n}@example.com>" for n in range(1, 31) if n % 3)
    assert len(load.times) == len(seen) == 30
    assert len(set(seen)) == 10
    assert 0 < result["p50_ms"] <= result["p99_ms"] <= result["seconds"] * 1000


async def test_the_load_generator_ends_after_its_time_and_closes() -> None:
    connections = set()

    async def handle(request: web.Request) -> web.Response:
        assert request.transport is not None
        connections.add(request.transport)
        return web.Response(text="x" * 100_000)  # more than comes in one piece

    async with web_server(handle) as port:
        load = Load(email_requests(port, recipients=1), seconds=0.2)
        await asyncio.wait_for(run_load(load, port, connections=3), 5)
    assert load.statuses.keys() == {200}
    assert len(connections) == 3
    assert all(connection.is_closing() for connection in connections)


async def test_a_connection_that_breaks_is_counted_and_replaced() -> None:
    # given a server that closes after one answer in four, and breaks off one in ten
    seen = 0

    async def handle(request: web.Request) -> web.Response:
        nonlocal seen
        seen += 1
        assert request.transport is not None
        if seen % 10 == 0:
            request.transport.abort()
        response = web.Response(text="x")
        if seen % 4 == 0:
            response.force_close()
        return response

    async with web_server(handle) as port:
        load = Load(email_requests(port, recipients=1), count=40)
        await asyncio.wait_for(run_load(load, port, connections=2), 5)
    assert seen == 40
    assert (load.statuses[200], load.broken) == (36, 4)


# The children


def test_a_child_is_gone_after_its_block_even_after_an_error(lab: Lab) -> None:
    def fail() -> None:
        with lab_sink(lab) as sink:
            sink.count()
            raise RuntimeError("in the middle of a measurement")

    with pytest.raises(RuntimeError):
        fail()


def test_a_child_that_fails_says_why(lab: Lab) -> None:
    with pytest.raises(ChildFailed, match=r"lab.load .*--port"):
        lab.measure("lab.load")


def test_a_child_that_cannot_start_says_why(lab: Lab) -> None:
    with (
        lab.child(python("common.run", 99), "strategy-99") as child,
        pytest.raises(ChildFailed, match="no strategy 99"),
    ):
        child.wait_for("listens on (.*)")


def test_children_have_default_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMTP_URL", "smtp://real.example.com")
    monkeypatch.setenv("SMTP_SESSIONS", "1")
    environment = default_environment(PORT=0)
    assert "SMTP_URL" not in environment
    assert environment["SMTP_SESSIONS"] == "20"
    assert environment["PORT"] == "0"


def test_a_sink_is_on_loopback_only(lab: Lab) -> None:
    with lab_sink(lab) as sink:
        sink_process = psutil.Process().children()[-1]
        addresses = {c.laddr.ip for c in sink_process.net_connections() if c.status == psutil.CONN_LISTEN}
    assert addresses == {"127.0.0.1"}
    assert isinstance(sink, LabSink)
