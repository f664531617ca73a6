"""The load of `make faults`, and its mail server."""

import asyncio
import signal
import smtplib
import time

from aiohttp import web

from lab.harness.mailbox import mailbox
from lab.harness.processes import Lab
from lab.load.steady import Steady
from tests.support.web_server import web_server

# The steady load


def accepted(number: int) -> web.Response:
    return web.json_response({"id": f"<{number}@example.com>"}, status=202)


async def test_a_server_that_stops_is_charged_for_all_requests_that_were_due() -> None:
    # given one client, and a server that answers the first request after half a second and the others at once
    seen: list[str] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.path)
        if len(seen) == 1:
            await asyncio.sleep(0.5)
        return accepted(len(seen))

    async with web_server(handle) as port:
        steady = Steady(port, rate=100.0, tag="t", query="", limit=60, timeout=5.0)
        await steady.run(clients=1)
    # then all requests that were due in that time have waited, each from the moment when it was due
    waited = {number: (answered - due) / 1e9 for number, due, _, answered, *_ in steady.records}
    assert len(waited) == 60
    assert all(waited[number] >= 0.5 - number / 100 for number in range(50))
    assert seen[:2] == ["/t-0@example.com/Hello/How are you?", "/t-1@example.com/Hello/How are you?"]
    assert steady.result()["late_p99_ms"] < 1000 * max(waited.values()), "not the load generator's delay"


async def test_a_waiting_client_does_not_delay_the_others() -> None:
    async def handle(request: web.Request) -> web.Response:
        if "/t-0@" in request.path:
            await asyncio.sleep(60)
        return accepted(0)

    async with web_server(handle) as port:
        steady = Steady(port, rate=200.0, tag="t", query="", limit=40, timeout=3.0)
        await steady.run(clients=2)
    statuses = {number: status for number, _, _, _, status, _ in steady.records}
    assert statuses == {0: 0} | dict.fromkeys(range(1, 40), 202)


async def test_a_missing_answer_has_status_0_and_the_load_continues() -> None:
    seen = 0

    async def handle(request: web.Request) -> web.Response:
        nonlocal seen
        seen += 1
        assert request.transport is not None
        if seen % 3 == 0:
            request.transport.abort()
        return accepted(seen) if seen % 3 == 1 else web.Response(status=503)

    async with web_server(handle) as port:
        steady = Steady(port, rate=0.0, tag="t", query="?wait=5", limit=9, timeout=5.0)
        await steady.run(clients=1)
    assert [record[4] for record in steady.records] == [202, 503, 0] * 3
    assert [bool(record[5]) for record in steady.records] == [True, False, False] * 3
    assert steady.figures()["accepted"] == 3


# The mail server


def test_a_killed_mail_server_keeps_its_record_and_restarts_on_its_ports(lab: Lab) -> None:
    with mailbox(lab) as box:
        port = box.smtp_port
        for number in (1, 2):
            with smtplib.SMTP("127.0.0.1", port, local_hostname="test") as smtp:
                smtp.sendmail("a@example.com", ["b@example.com"], f"Message-ID: <{number}@example.com>\r\n\r\nhi")
            box.end(signal.SIGKILL)
            box.start()
        assert box.smtp_port == port
        arrivals = box.arrivals()
        assert [(arrival.to, arrival.id) for arrival in arrivals] == [
            ("b@example.com", "<1@example.com>"),
            ("b@example.com", "<2@example.com>"),
        ]
        assert arrivals[0].at < arrivals[1].at < time.perf_counter_ns()


def test_an_email_is_not_sent_if_its_sender_dies_before_the_server_has_stored_it(lab: Lab) -> None:
    with mailbox(lab, take_ms=300) as box, smtplib.SMTP("127.0.0.1", box.smtp_port, local_hostname="test") as smtp:
        smtp.mail("a@example.com")
        smtp.rcpt("dead@example.com")
        smtp.docmd("DATA")
        smtp.send(b"Message-ID: <1@example.com>\r\n\r\nhi\r\n.\r\n")
        smtp.close()
        with smtplib.SMTP("127.0.0.1", box.smtp_port, local_hostname="test") as other:
            other.sendmail("a@example.com", ["alive@example.com"], "Message-ID: <2@example.com>\r\n\r\nhi")
        assert [arrival.to for arrival in box.arrivals()] == ["alive@example.com"]
