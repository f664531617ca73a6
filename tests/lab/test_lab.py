"""The lab's load generators, mail servers and figures are correct. No test checks how fast anything is."""

import asyncio
import io
import json
import math
import smtplib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest
from aiohttp import web
from rich.console import Console

from lab.bench.accepting import cpu_by_role, load_by_role
from lab.bench.idle import compare_moments
from lab.bench.mailer import send
from lab.bench.parts import Breakdown, breakdown
from lab.bench.suite import BENCHMARKS, Benchmark, chosen, measure, report
from lab.harness import command, processes, sinks
from lab.harness.account import IdAccount, compare_ids
from lab.harness.exactly_once import exactly_once
from lab.harness.figures import Rounds, Row, Spread, in_turns, percentile
from lab.harness.machine import alive, busy, describe_machine
from lab.harness.processes import ChildFailed, Lab, default_environment, python
from lab.harness.sink import Sink
from lab.harness.sinks import WITH_LIFELINE, LabSink, lab_sink, url_of, wait_for_mail
from lab.harness.strategies import strategies, strategy
from lab.harness.valkey import valkey
from lab.load import smtp as load_smtp
from lab.load.http import Load, email_requests, run_load
from lab.load.redis import KINDS
from lab.load.steady import Steady
from tests.support.programs import LIMIT, ROOT, wait_until
from tests.support.web_server import web_server

# Figures


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([15, 20, 35, 40, 50], 30, 20),  # the usual example of the nearest-rank method
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


def test_ratios_are_computed_round_by_round() -> None:
    # given another program that halves the rates of the second round
    rounds = Rounds([{"rate": 10}, {"rate": 5}, {"rate": 12}], [{"rate": 20}, {"rate": 10}, {"rate": 20}])
    # then the rates vary, and their ratio hardly does
    assert rounds.measured == Spread(10, 5, 12)
    assert rounds.ratio == Spread(0.5, 0.5, 0.6)


def test_a_measurement_and_its_reference_alternate() -> None:
    calls: list[str] = []

    def measure(name: str) -> dict[str, int]:
        calls.append(name)
        return {"rate": len(calls)}

    in_turns(lambda _: None, lambda: measure("ours"), lambda: measure("bare"), rounds=2)
    assert calls == ["ours", "bare", "ours", "bare"]


def test_the_ids_of_a_burst_are_compared_both_ways() -> None:
    account = compare_ids(accepted=["a", "b", "c"], delivered=["a", "b", "b", "x"])
    assert account == IdAccount(accepted=3, delivered=4, lost=1, duplicated=1, unexpected=1)


@pytest.mark.parametrize("wrong", ["lost", "duplicated", "unexpected", "broken"])
def test_exactly_once_means_none_lost_duplicated_or_unexpected_and_no_broken_connection(wrong: str) -> None:
    account = IdAccount(accepted=2, delivered=2, lost=0, duplicated=0, unexpected=0)
    assert exactly_once(account, {"broken": 0}, {"broken": 0})
    broken = int(wrong == "broken")
    bad = account if broken else replace(account, **{wrong: 1})
    assert not exactly_once(bad, {"broken": 0}, {"broken": broken})


def row(name: str, *rates: float) -> Row:
    rounds = Rounds([{"rate": rate} for rate in rates], [{"rate": rate} for rate in rates])
    return Row(name, "emails/s", rounds, against="bare SMTP", target="none", met=True, notes=())


def test_a_row_with_one_round_says_so() -> None:
    assert row("burst", 7.0).to_dict()["against"] == "bare SMTP, one round"
    assert row("mailer", 7.0, 8.0).to_dict()["against"] == "bare SMTP"


def test_the_time_of_a_part_is_the_difference_that_it_makes(tmp_path: Path) -> None:
    figures = {"bare": 10.0, "with one": 13.0, "whole": 20.0}
    programs = [partial(figures.__getitem__, name) for name in figures]
    found = breakdown(Lab(tmp_path), "a request", ("bare", "one"), programs)
    assert found == Breakdown("a request", {"bare": 10.0, "one": 3.0, "the rest": 7.0})
    assert found.total == 20.0


def test_if_a_benchmark_fails_the_rows_before_it_are_saved_as_a_partial_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    monkeypatch.setattr(command, "PARTIAL", tmp_path / "partial")
    console = Console(file=io.StringIO())

    def works(lab: Lab) -> Iterator[Row | Breakdown]:
        yield row("one", 7.0)

    def fails(lab: Lab) -> Iterator[Row | Breakdown]:
        yield row("two", 8.0)
        yield Breakdown("three", {"first": 1.0, "second": 2.0})
        raise ChildFailed("sink: no output")

    rows: list[Row | Breakdown] = []
    benchmarks: dict[str, Benchmark] = {"works": works, "fails": fails, "not reached": works}
    with pytest.raises(ChildFailed):
        measure(benchmarks, rows, console)
    report(console, rows, describe_machine(), "sink: no output", whole=True)
    [path] = tmp_path.rglob("*.json")
    facts = json.loads(path.read_text())
    assert path == tmp_path / "partial" / "bench.json"
    assert ([found["name"] for found in facts["rows"]], facts["failure"]) == (["one", "two"], "sink: no output")
    assert facts["parts"] == [{"name": "three", "parts": {"first": 1.0, "second": 2.0}}]
    # and a complete run is saved as the result
    report(console, rows, describe_machine(), "", whole=True)
    assert (tmp_path / "bench.json").exists()


def test_only_the_named_groups_are_measured() -> None:
    assert chosen(["burst"]) == BENCHMARKS["burst"]
    assert len(chosen([])) == sum(len(group) for group in BENCHMARKS.values())


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


# The load generator


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


async def test_the_load_generator_ends_after_its_time_and_closes_its_connections() -> None:
    connections = set()

    async def handle(request: web.Request) -> web.Response:
        assert request.transport is not None
        connections.add(request.transport)
        return web.Response(text="x" * 100_000)  # more than one read returns

    async with web_server(handle) as port:
        load = Load(email_requests(port, recipients=1), seconds=0.2)
        await asyncio.wait_for(run_load(load, port, connections=3), LIMIT)
    assert load.statuses.keys() == {200}
    assert len(connections) == 3
    assert all(connection.is_closing() for connection in connections)


async def test_a_connection_that_breaks_is_counted_and_replaced() -> None:
    # given a server that closes the connection after every fourth answer, and aborts every tenth request
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
        await asyncio.wait_for(run_load(load, port, connections=2), LIMIT)
    assert seen == 40
    assert (load.statuses[200], load.broken) == (36, 4)


async def test_with_a_pause_a_connection_waits_after_each_answer() -> None:
    # given a server that records when each request arrived
    seen: list[int] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(time.perf_counter_ns())
        return web.Response(text=f'{{"id": "<{len(seen)}@example.com>"}}', status=202)

    async with web_server(handle) as port:
        load = Load(email_requests(port, recipients=1), count=5, pause=0.01, ids=True)
        await run_load(load, port, connections=1)
    result = load.result()
    # then each was sent before it arrived, and at least half a pause after the one before
    assert result["ids"] == [f"<{n}@example.com>" for n in range(1, 6)]
    assert all(asked < came for asked, came in zip(result["asked_ns"], seen, strict=True))
    assert all(later - earlier >= 5e6 for earlier, later in zip(seen, result["asked_ns"][1:], strict=False))


@pytest.mark.parametrize(("each", "warned"), [((0, 5, 0, 10), False), ((0, 0, 0, 0, 0, 0, 0, 100), True)])
def test_a_machine_is_busy_if_part_of_one_core_is_whatever_the_number_of_cores(
    each: tuple[float, ...], warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval, percpu: list(each))
    warning = busy()
    assert (warning is not None) == warned
    assert warning is None or "1.0 of its 8 cores" in warning


# The load generator with a steady rate; more of it is in test_faults.py


async def test_the_requests_in_flight_grow_as_a_slow_server_needs(lab: Lab) -> None:
    # given a server that answers no request before it has twenty
    seen: list[str] = []
    all_arrived = asyncio.Event()

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.path)
        if len(seen) == 20:
            all_arrived.set()
        await all_arrived.wait()
        return web.Response(text=f'{{"id": "<{len(seen)}@example.com>"}}', status=202)

    async with web_server(handle) as port:
        options = ("--port", port, "--rate", 100, "--count", 20, "--timeout", 10)
        facts = await asyncio.to_thread(lab.measure, "lab.load.steady", *options)
    # then no request waited for a free client
    assert [record[4] for record in facts["records"]] == [202] * 20
    assert facts["max_in_flight"] == 20


async def test_the_limit_of_clients_also_applies_at_a_rate(lab: Lab) -> None:
    in_flight = most = 0

    async def handle(request: web.Request) -> web.Response:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0.05)
        in_flight -= 1
        return web.Response(text='{"id": "<1@example.com>"}', status=202)

    async with web_server(handle) as port:
        options = ("--port", port, "--rate", 500, "--clients", 2, "--count", 20)
        facts = await asyncio.to_thread(lab.measure, "lab.load.steady", *options)
    assert len(facts["records"]) == 20
    assert most == facts["max_in_flight"] == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--rate", 0, "--exact"), "--exact needs a --rate"),
        (("--rate", 5, "--clients", 0), "--clients must be at least 1"),
    ],
)
def test_an_option_without_an_effect_is_rejected(options: tuple[object, ...], words: str) -> None:
    program = subprocess.run(python("lab.load.steady", "--port", 1, *options), capture_output=True, text=True, cwd=ROOT)
    assert (program.returncode, words in program.stderr) == (2, True), program.stderr


async def test_connections_are_reused_and_a_closed_loop_has_one_per_client(lab: Lab) -> None:
    connections = set()

    async def handle(request: web.Request) -> web.Response:
        connections.add(request.transport)
        return web.Response(text='{"id": "<1@example.com>"}', status=202)

    async with web_server(handle) as port:
        options = ("--port", port, "--rate", 0, "--clients", 3, "--count", 30)
        facts = await asyncio.to_thread(lab.measure, "lab.load.steady", *options)
    assert len(facts["records"]) == 30
    assert len(connections) == facts["max_in_flight"] == 3


@pytest.mark.parametrize("exact", [False, True])
async def test_no_email_is_requested_before_it_is_due(exact: bool) -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(text='{"id": "<1@example.com>"}', status=202)

    async with web_server(handle) as port:
        steady = Steady(port, rate=100.0, tag="t", query="", limit=30, timeout=5.0, exact=exact)
        await steady.run(clients=30)
    assert [(due - steady.start) for _, due, *_ in sorted(steady.records)] == [n * 10_000_000 for n in range(30)]
    late = sorted((asked - due) / 1e6 for _, due, asked, *_ in steady.records)
    assert late[0] >= 0
    # and the result says how late the requests were
    result = steady.result()
    assert [result["late_p50_ms"], result["late_p99_ms"]] == [late[14], late[29]]


# The strategies, and their figures


def test_a_strategy_is_ready_with_known_roles_and_leaves_no_process(lab: Lab) -> None:
    with lab_sink(lab) as sink, strategy(lab, 3, url_of(sink)) as server:
        roles = server.roles()
        processes = [psutil.Process(pid) for pid in server.pids()]
        facts = load_by_role(lab, server.port, roles, count=50)
        wait_for_mail(sink, 50)
        assert sorted(roles.values()) == ["email worker", "master", "web server"]
        assert (facts["statuses"], sink.count()) == ({"202": 50}, 50)
        assert facts["cpu_us"].keys() == set(roles.values())
    assert not any(map(alive, processes))


def test_missing_strategies_are_not_measured() -> None:
    assert strategies(1, 3, 99) == [1, 3]


def test_the_time_to_the_sink_is_that_of_the_first_copy() -> None:
    asked = {"a": 1_000_000, "b": 5_000_000, "c": 9_000_000, "lost": 12_000_000}
    arrivals = [("a", 3_000_000), ("x", 4_000_000), ("c", 10_000_000), ("b", 11_000_000), ("a", 99_000_000)]
    facts = compare_moments(asked, arrivals)
    assert facts == {"p50_ms": 2.0, "p99_ms": 6.0, "worst_ms": 6.0, "lost": 1, "busy": 1}


def test_cpu_time_is_shown_by_role_the_highest_first() -> None:
    rounds = [{"cpu_us": {"master": n, "web server": 10 * n}} for n in (1.0, 2.0, 9.0)]
    assert cpu_by_role(rounds) == "web server 20 µs, master 2 µs"


@pytest.mark.parametrize("command", KINDS)
def test_commands_are_called_one_by_one_and_batched(lab: Lab, command: str) -> None:
    with valkey(lab) as url:
        for options in ((), ("--batched",)):
            facts = lab.measure("lab.load.redis", command, "--seconds", 0.05, *options, REDIS_URL=url)
            assert facts["calls"] > 0


# The children


def test_the_children_of_a_child_are_ended_too(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a child whose own child is in another session and gets no signal
    monkeypatch.setattr(processes, "ORPHAN_SECONDS", 0.05)
    program = """
import subprocess, time
print(subprocess.Popen(["sleep", "60"], start_new_session=True).pid, flush=True)
time.sleep(60)
"""
    with lab.child([sys.executable, "-c", program], "parent") as child:
        orphan = psutil.Process(int(child.wait_for(r"(\d+)\n")))
        assert alive(orphan)
    assert not alive(orphan)


def test_a_program_without_a_lifeline_gets_one(lab: Lab) -> None:
    with lab.child([*WITH_LIFELINE, "sleep", "60"], "sleep") as child:
        shell = psutil.Process(child.process.pid)
        [program] = wait_until(shell.children, "the shell starts the program")
        # when the pipe from the parent is closed, as it is even if the parent is killed
        assert child.process.stdin is not None
        child.process.stdin.close()
        child.process.wait(LIMIT)
        wait_until(lambda: not alive(program), "the program ends with its shell")


def test_a_child_is_ended_after_an_error_in_its_block(lab: Lab) -> None:
    def fail() -> None:
        with lab_sink(lab) as sink:
            sink.count()
            raise RuntimeError("in the middle of a measurement")

    with pytest.raises(RuntimeError):
        fail()


def test_the_error_of_a_child_has_its_last_line(lab: Lab) -> None:
    with pytest.raises(ChildFailed, match=r"lab.load.http .*--port"):
        lab.measure("lab.load.http")


def test_the_error_of_a_child_that_cannot_start_has_its_last_line(lab: Lab) -> None:
    with (
        lab.child(python("common.processes.run", 99), "strategy-99") as child,
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


def test_the_sink_listens_on_loopback_only(lab: Lab) -> None:
    with lab_sink(lab) as sink:
        [sink_process] = [child for child in psutil.Process().children() if "lab.harness.sink" in child.cmdline()]
        addresses = {c.laddr.ip for c in sink_process.net_connections() if c.status == psutil.CONN_LISTEN}
    assert addresses == {"127.0.0.1"}
    assert isinstance(sink, LabSink)
