"""The lab's faults are done for real, counted right, and held against the promises; and nothing is left behind."""

import asyncio
import json
import os
import signal
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import web

from lab import cell
from lab.account import Hit, Story, account
from lab.cell import broken_promises, queued_at_worker, run_cells
from lab.children import Lab
from lab.hits import HITS
from lab.mailbox import Arrival, mailbox
from lab.promises import FAULTS, SUBJECTS, Bound, Promise, faults_of, promise
from lab.steady import Record, Steady
from tests.programs import ROOT, wait_until
from tests.web_server import web_server

UNDER_WAY = Promise(lost=Bound.UNDER_WAY, twice=Bound.UNDER_WAY)


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
    found = account(records, arrivals, "t", given_up={"<2>"})
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


def test_what_the_strategy_still_holds_is_queued_and_not_lost() -> None:
    found = account([asked(0), asked(1), asked(2)], [came(0, 5)], "t", queued=1)
    assert (found.ok, found.queued, found.lost, found.closes) == (1, 1, 1, True)


@pytest.mark.parametrize(("books", "closes"), [(3, True), (None, True), (2, False), (4, False)])
def test_the_books_of_the_strategy_must_say_the_same(books: int | None, *, closes: bool) -> None:
    # given one delivered twice, one delivered and never acknowledged, and one given up
    records, arrivals = [asked(0), asked(1, 0), asked(2)], [came(0, 5), came(0, 6), came(1, 15)]
    found = account(records, arrivals, "t", given_up={"<2>"}, books=books)
    assert (found.done, found.closes) == (3, closes)
    assert found.remarks == ([] if closes else [f"the books say {books} done, and there are 3"])


def test_an_email_that_was_given_up_and_delivered_counts_once() -> None:
    found = account([asked(0)], [came(0, 5)], "t", given_up={"<0>"}, books=1)
    assert (found.ok, found.failed, found.closes) == (1, 0, True)
    assert found.remarks == ["1 given up and delivered all the same: every reply to them was lost"]


def test_a_second_email_for_one_request_is_unexpected() -> None:
    found = account([asked(0)], [came(0, 5), came(0, 6, "<another>")], "t")
    assert (found.ok, found.duplicated, found.unexpected) == (1, 0, 1)


S = 1_000_000_000


@pytest.mark.parametrize(
    ("hit", "arrivals", "expected"),
    [
        (Hit(50 * S, 60 * S), (40 * S,), False),  # it was there long before
        (Hit(50 * S, 60 * S), (40 * S, 70 * S), False),  # and for that its copy after the fault has no excuse
        (Hit(50 * S, 60 * S), (50 * S - S // 2, 70 * S), True),  # it had just come, and was perhaps not acknowledged
        (Hit(50 * S, 60 * S), (55 * S,), True),
        (Hit(5 * S, 10 * S), (40 * S,), False),  # it was asked for after it
        (Hit(20 * S, 25 * S), (), True),  # it never came
        (Hit(50 * S, 60 * S), (), False),  # it never came, but should have long before
    ],
)
def test_under_way_is_what_was_asked_for_and_not_there(hit: Hit, arrivals: tuple[int, ...], *, expected: bool) -> None:
    assert Story(20 * S, 20 * S, 21 * S, 202, "<0>", arrivals).under_way(hit) == expected


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


LATE = [Hit(500 * S, 501 * S)]


@pytest.mark.parametrize(
    ("promised", "arrivals", "hits", "reason"),
    [
        (Promise(), [came(0, 5)], [], None),
        (Promise(), [], [], "1 lost, promised: none"),
        (Promise(), [came(0, 5), came(0, 6)], [], "1 twice, promised: none"),
        (Promise(), [came(0, 5), came(0, 6, "<y>")], [], "1 sent that nobody has asked for"),
        (UNDER_WAY, [], [Hit(10, 20)], None),
        (UNDER_WAY, [came(0, 5), came(0, 30)], [Hit(10, 20)], None),
        (UNDER_WAY, [], LATE, "1 lost that were not under way at any fault"),
        (UNDER_WAY, [came(0, 5), came(0, 600 * S)], LATE, "1 twice that were not under way at any fault"),
    ],
)
def test_a_broken_promise_is_found(
    promised: Promise, arrivals: list[Arrival], hits: list[Hit], reason: str | None
) -> None:
    assert broken_promises(promised, account([asked(0)], arrivals, "t"), hits) == ([reason] if reason else [])


def test_more_than_a_worker_has_in_its_hands_do_not_come_twice_for_one_fault() -> None:
    records, arrivals = [asked(n) for n in range(51)], [came(n, at) for n in range(51) for at in (1000, 1001)]
    found = account(records, arrivals, "t")
    promised = Promise(twice=Bound.IN_HANDS)
    assert broken_promises(promised, found, [Hit(1000, 1001)] * 2) == []
    assert broken_promises(promised, found, [Hit(1000, 1001)]) == [
        "51 twice, promised: at most 50 for each of 1 faults"
    ]


def test_given_up_is_not_lost_and_only_where_it_is_promised() -> None:
    found = account([asked(0)], [], "t", given_up={"<0>"})
    hits = [Hit(5, 6), Hit(7 * S, 8 * S)]
    assert broken_promises(Promise(given_up=1), found, hits) == []
    assert broken_promises(Promise(given_up=2), found, hits) == []
    assert broken_promises(Promise(given_up=3), found, hits) == ["1 given up, promised: only after 3 faults"]
    assert broken_promises(Promise(), found, hits) == ["1 given up, promised: none"]


def test_an_account_that_does_not_close_is_a_broken_promise() -> None:
    assert broken_promises(Promise(), account([], [], "t", books=1), []) == ["the account does not close"]


def test_strategy_4_is_at_rest_when_its_worker_has_said_so_last() -> None:
    figures = "[worker @ 7] 10:00:0{} accepted 3, sent {}, failed 0, retried 1, waiting {}, in flight {}, rubbish 0\n"
    start, sent = "[worker @ 7] 10:00:00 subscribed to emailz\n", "[worker @ 7] 10:00:01.5 sent <1@x> to a@x in 1 ms\n"
    again = "[worker @ 7] 10:00:01.500 <1@x> again in 1.0 s: Unavailable: 451\n"
    assert queued_at_worker(start) == 0
    assert queued_at_worker(start + sent) == 1
    assert queued_at_worker(start + sent + figures.format(5, 2, 1, 0)) == 1
    assert queued_at_worker(start + sent + figures.format(5, 3, 0, 0)) == 0
    assert queued_at_worker(start + sent + figures.format(5, 3, 0, 0) + again) == 1
    assert queued_at_worker(start + again + start) == 0, "it was killed, and what it had with it"


# The steady load


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
    assert steady.result()["late_p99_ms"] < 400, "that was not the load generator's doing"


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


@contextmanager
def faults(tmp_path: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The command, ended with all that it has started whatever happens."""
    own = {"RESULTS_DIR": str(tmp_path), "TMPDIR": str(tmp_path), "KILLS": "1", "SEED": "7"}
    program = subprocess.Popen(
        [sys.executable, "-m", "lab.faults"],
        cwd=ROOT,
        env=os.environ | own | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with program:
        try:
            yield program
        finally:
            program.terminate()  # its end is in order; a second one hurts nobody


def test_the_command_says_promised_and_measured_and_saves_it(tmp_path: Path) -> None:
    with faults(tmp_path, STRATEGIES="3 5", FAULTS="worker-kill redis-tail") as program:
        output = program.communicate(timeout=55)[0]
    assert program.returncode == 0, output
    assert "all 3 promises were kept" in output
    facts: dict[str, Any] = json.loads((tmp_path / "partial" / "faults.json").read_text())
    assert facts["settings"]["SEED"] == "7"
    assert [(c["subject"], c["fault"], c["hits"], c["lost"], c["closes"], c["broken"]) for c in facts["cells"]] == [
        ("3", "worker-kill", 1, 0, True, []),
        ("5", "worker-kill", 1, 0, True, []),
        ("5", "redis-tail", 1, 0, True, []),
    ]
    assert all(c["books"] == c["done"] >= c["ok"] > 0 for c in facts["cells"])
    assert facts["totals"]["faults"] == 3
    assert facts["totals"]["acknowledged"] == facts["totals"]["ok"] > 30
    assert "| SIGKILL to the worker | lost 0" in (tmp_path / "partial" / "faults.md").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_whoever_ends_it_nothing_is_left_behind(tmp_path: Path, number: signal.Signals) -> None:
    with faults(tmp_path, STRATEGIES="3 5", FAULTS="none") as program:
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
        assert program.wait(50) == (130 if number == signal.SIGINT else -signal.SIGKILL)
        assert psutil.wait_procs(family, timeout=30)[1] == []


def test_a_strategy_ends_with_the_lab_that_was_killed(tmp_path: Path) -> None:
    """`make` knows nothing of lifelines, but passes them on."""
    program = f"""
import sys, time
from pathlib import Path
from lab.children import Lab
from lab.strategies import strategy
with strategy(Lab(Path({str(tmp_path)!r})), 4, "smtp://127.0.0.1:1") as running:
    print("runs", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as lab:
        assert lab.stdout is not None
        assert lab.stdout.readline() == "runs\n"
        family = psutil.Process(lab.pid).children(recursive=True)
        assert len(family) >= 5
        lab.kill()
        assert psutil.wait_procs(family, timeout=30)[1] == []


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"STRATEGIES": "7"}, "STRATEGIES: there is no 7; there are 1, 2, 3, 4, 4w, 5, 6, 6s"),
        ({"FAULTS": "none meteor"}, "FAULTS: there is no meteor"),
        ({"STRATEGIES": "1", "FAULTS": "redis-kill"}, "none of these faults can be done to these strategies"),
        ({"KILLS": "0"}, "KILLS: 0 is not a number of at least 1"),
        ({"RATE": "fast"}, "RATE: fast is not a number"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(tmp_path: Path, environment: dict[str, str], words: str) -> None:
    with faults(tmp_path, **environment) as program:
        output = program.communicate(timeout=20)[0]
    assert (program.returncode, words in output) == (2, True), output
