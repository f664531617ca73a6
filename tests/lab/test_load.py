"""The load generators of the lab."""

import asyncio
import subprocess
import time

import psutil
import pytest
from aiohttp import web

from lab.harness.machine import busy
from lab.harness.processes import Lab, python
from lab.load.http import Load, email_requests, run_load
from lab.load.steady import Steady
from tests.support.programs import LIMIT, ROOT
from tests.support.web_server import web_server

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
