"""The lab's faults are done for real, counted right, and held against the promises; and nothing is left behind."""

import asyncio
import json
import os
import signal
import smtplib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import web

from common.web import Handler
from lab import cell
from lab.account import Account, Hit, Story, account
from lab.cell import broken_promises, run_cells
from lab.children import Lab
from lab.hits import HITS
from lab.mailbox import Arrival, mailbox
from lab.promises import FAULTS, SUBJECTS, Bound, Promise, faults_of, promise
from lab.steady import Record, Steady
from tests.programs import ROOT, wait_until

UNDER_WAY = Promise(lost=Bound.UNDER_WAY, twice=Bound.UNDER_WAY)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A lab whose children are all gone after the test."""
    before = psutil.Process().children()
    yield Lab(tmp_path)
    assert psutil.Process().children() == before


# The account


def asked(number: int, status: int = 202, email_id: str | None = None) -> Record:
    """Email `number` was due at 10 * number, and asked for and answered soon after."""
    due = 10 * number
    found = f"<{number}>" if email_id is None and 200 <= status < 300 else email_id or ""
    return number, due, due + 1, due + 2 if status else 0, status, found


def came(number: int, at: int, email_id: str | None = None) -> Arrival:
    return Arrival(at, f"t-{number}@example.com", email_id or f"<{number}>")


def test_each_email_has_one_place_in_the_account() -> None:
    records = [asked(0), asked(1), asked(2), asked(3), asked(4, 503), asked(5, 0), asked(6, 0)]
    arrivals = [came(0, 5), came(1, 15), came(1, 17), came(5, 55, "<?>"), Arrival(60, "stranger@example.com", "<x>")]
    found = account(records, arrivals, "t", failed={"<2>", "<of another run>"})
    assert found.numbers() == {
        "attempted": 7,
        "acknowledged": 4,
        "ok": 2,
        "failed": 1,
        "queued": 0,
        "lost": 1,
        "duplicated": 1,
        "recovered": 1,
        "unexpected": 1,
    }
    assert found.closes


def test_an_email_that_waits_when_all_should_have_ended_does_not_close() -> None:
    found = account([asked(0), asked(1)], [came(0, 5)], "t", queued=1)
    assert (found.lost, found.queued, found.closes) == (1, 1, False)
    assert found.remarks == ["does not close: 1 are still queued, by the strategy's own books"]


def test_an_email_that_was_given_up_and_delivered_counts_once() -> None:
    found = account([asked(0)], [came(0, 5)], "t", failed={"<0>"})
    assert (found.ok, found.failed, found.closes) == (1, 0, True)
    assert "1 in the failed list and delivered" in found.remarks[0]


def test_a_second_email_for_one_request_is_unexpected() -> None:
    found = account([asked(0)], [came(0, 5), came(0, 6, "<another>")], "t")
    assert (found.ok, found.duplicated, found.unexpected) == (1, 0, 1)


@pytest.mark.parametrize(
    ("hit", "arrivals", "expected"),
    [
        (Hit(50, 60), (40,), False),  # it was there before
        (Hit(50, 60), (55,), True),
        (Hit(50, 60), (40, 70), True),  # it came again after it
        (Hit(5, 10), (40,), False),  # it was asked for after it
        (Hit(50, 60), (), True),  # it never came
        (Hit(500, 600), (), False),  # it never came, but that was long before
    ],
)
def test_under_way_is_what_was_asked_for_and_not_there(hit: Hit, arrivals: tuple[int, ...], *, expected: bool) -> None:
    assert Story(20, 21, 22, 202, "<0>", arrivals).under_way(hit, before=100) == expected


# The promises


def test_every_fault_can_be_done_and_every_cell_has_a_promise() -> None:
    assert HITS.keys() == FAULTS.keys()
    cells = [(subject, fault) for subject in SUBJECTS for fault in faults_of(SUBJECTS[subject])]
    assert all(promise(*each).text() for each in cells)
    assert {fault for _, fault in cells} == set(FAULTS)


@pytest.mark.parametrize("subject", ["5", "6", "6s", "4w"])
def test_these_promise_to_lose_nothing_whatever_is_done(subject: str) -> None:
    assert {promise(subject, fault).lost for fault in faults_of(SUBJECTS[subject])} == {Bound.NONE}


def test_strategy_3_promises_to_lose_nothing_but_for_the_master() -> None:
    lossy = [fault for fault in faults_of(SUBJECTS["3"]) if promise("3", fault).lost is not Bound.NONE]
    assert lossy == ["master-kill"]


@pytest.mark.parametrize(
    ("promised", "records", "arrivals", "reason"),
    [
        (Promise(), [asked(0)], [came(0, 5)], None),
        (Promise(), [asked(0)], [], "1 lost, promised: none"),
        (Promise(), [asked(0)], [came(0, 5), came(0, 6)], "1 twice, promised: none"),
        (Promise(), [asked(0)], [came(0, 5), came(0, 6, "<y>")], "1 sent that nobody has asked for"),
        (UNDER_WAY, [asked(0)], [], None),
        (UNDER_WAY, [asked(0)], [came(0, 5), came(0, 30)], None),
        (UNDER_WAY, [asked(9)], [], "1 lost that were not under way at any fault"),
        (UNDER_WAY, [asked(0)], [came(0, 5), came(0, 6)], "1 twice that were not under way at any fault"),
    ],
)
def test_a_broken_promise_is_found(
    promised: Promise, records: list[Record], arrivals: list[Arrival], reason: str | None
) -> None:
    found = account(records, arrivals, "t")
    assert broken_promises(promised, found, [Hit(10, 20)], failed=()) == ([reason] if reason else [])


def test_given_up_is_not_lost_and_only_where_it_is_promised() -> None:
    found = account([asked(0)], [], "t", failed={"<0>"})
    assert broken_promises(Promise(failed=True), found, [], {"<0>"}) == []
    assert broken_promises(Promise(), found, [], {"<0>"}) == ["1 given up, promised: none"]


def test_an_account_that_does_not_close_is_a_broken_promise() -> None:
    assert broken_promises(Promise(), Account(queued=1), [], ()) == ["the account does not close"]


# The steady load


@asynccontextmanager
async def web_server(handler: Handler) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_get("/{tail:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


def accepted(number: int) -> web.Response:
    return web.json_response({"id": f"<{number}@example.com>"}, status=202)


async def test_a_server_that_stands_still_is_charged_for_all_who_would_have_asked() -> None:
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
    # then all that were due meanwhile have waited, each from the moment when it was due
    waited = {number: (answered - due) / 1e9 for number, due, _, answered, *_ in steady.records}
    assert len(waited) == 60
    assert all(waited[number] >= 0.5 - number / 100 for number in range(50))
    assert seen[:2] == ["/t-0@example.com/Hello/How are you?", "/t-1@example.com/Hello/How are you?"]
    assert steady.result()["late_p99_ms"] >= 400


async def test_a_client_that_waits_holds_up_no_other() -> None:
    async def handle(request: web.Request) -> web.Response:
        if "/t-0@" in request.path:
            await asyncio.sleep(60)
        return accepted(0)

    async with web_server(handle) as port:
        steady = Steady(port, rate=200.0, tag="t", query="", limit=40, timeout=0.5)
        await steady.run(clients=2)
    statuses = {number: status for number, _, _, _, status, _ in steady.records}
    assert statuses == {0: 0} | dict.fromkeys(range(1, 40), 202)


async def test_an_answer_that_never_comes_is_none_and_the_load_goes_on() -> None:
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


def test_a_killed_mail_server_remembers_and_comes_back_to_its_ports(lab: Lab) -> None:
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


def test_who_dies_while_an_email_is_taken_has_sent_nothing(lab: Lab) -> None:
    with mailbox(lab, take_ms=300) as box, smtplib.SMTP("127.0.0.1", box.smtp_port, local_hostname="test") as smtp:
        smtp.mail("a@example.com")
        smtp.rcpt("dead@example.com")
        smtp.docmd("DATA")
        smtp.send(b"Message-ID: <1@example.com>\r\n\r\nhi\r\n.\r\n")
        smtp.close()
        with smtplib.SMTP("127.0.0.1", box.smtp_port, local_hostname="test") as other:
            other.sendmail("a@example.com", ["alive@example.com"], "Message-ID: <2@example.com>\r\n\r\nhi")
        assert [arrival.to for arrival in box.arrivals()] == ["alive@example.com"]


# The cells, for real


def test_a_wrong_promise_turns_red(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Strategy 2 loses what is in flight. Had it promised otherwise, the lab would say so."""
    monkeypatch.setattr(cell, "promise", lambda subject, fault: Promise())
    monkeypatch.setattr(cell, "SILENT_SECONDS", 1.0)
    with mailbox(lab, take_ms=150) as box:
        run_cells(lab, box, "2", ["server-kill"], cell.Plan("1", kills=1, rate=100.0))
    [found] = [facts["cell"] for facts in map(json.loads, capsys.readouterr().out.splitlines()) if "cell" in facts]
    assert found["lost"] > 0
    assert found["broken"] == [f"{found['lost']} lost, promised: none"]
    assert found["acknowledged"] == found["ok"] + found["lost"]


def faults(tmp_path: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lab.faults"],
        cwd=ROOT,
        env=os.environ | {"RESULTS_DIR": str(tmp_path), "KILLS": "1", "SEED": "7"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_the_command_says_promised_and_measured_and_saves_it(tmp_path: Path) -> None:
    program = faults(tmp_path, STRATEGIES="3 5", FAULTS="worker-kill redis-tail")
    output = program.communicate(timeout=50)[0]
    assert program.returncode == 0, output
    assert "all 3 promises were kept" in output
    facts: dict[str, Any] = json.loads((tmp_path / "partial" / "faults.json").read_text())
    assert facts["settings"]["SEED"] == "7"
    assert [(c["subject"], c["fault"], c["hits"], c["lost"], c["closes"], c["broken"]) for c in facts["cells"]] == [
        ("3", "worker-kill", 1, 0, True, []),
        ("5", "worker-kill", 1, 0, True, []),
        ("5", "redis-tail", 1, 0, True, []),
    ]
    assert facts["totals"]["hits"] == 3
    assert facts["totals"]["acknowledged"] == facts["totals"]["ok"] > 30
    assert "| SIGKILL to the worker | lost 0; twice ≤ under way | lost 0; " in (
        (tmp_path / "partial" / "faults.md").read_text()
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_whoever_ends_it_nothing_is_left_behind(tmp_path: Path, number: signal.Signals) -> None:
    program = faults(tmp_path, STRATEGIES="3 5", FAULTS="none")
    runner = psutil.Process(program.pid)

    def all_there() -> bool:
        with suppress(psutil.NoSuchProcess):
            return {"common.valkey", "common.run", "5_remote_queue", "lab.inbox"} <= {
                word for process in runner.children(recursive=True) for word in process.cmdline()
            }
        return False

    wait_until(all_there, "the strategies run")
    family = runner.children(recursive=True)
    program.send_signal(number)
    assert program.wait(20) == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert program.stdout is not None
    program.stdout.close()
    assert psutil.wait_procs(family, timeout=20)[1] == []


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"STRATEGIES": "7"}, "STRATEGIES: there is no 7; there are 1, 2, 3, 4, 4w, 5, 6, 6s"),
        ({"FAULTS": "none meteor"}, "FAULTS: there is no meteor"),
        ({"KILLS": "0"}, "KILLS: 0 is not a number of at least 1"),
        ({"RATE": "fast"}, "RATE: fast is not a number"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(tmp_path: Path, environment: dict[str, str], words: str) -> None:
    program = faults(tmp_path, **environment)
    output = program.communicate(timeout=20)[0]
    assert (program.returncode, words in output) == (2, True), output
