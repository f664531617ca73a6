"""The account of `make faults`, and the promises that it is compared with."""

from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from common.services import nats, rabbitmq
from lab.faults import engine_faults
from lab.faults.cell import back_too_late
from lab.faults.injections import INJECTIONS
from lab.faults.promises import FAULTS, SUBJECTS, Bound, faults_of, promise
from lab.harness.account import Counters, account
from lab.harness.engines import missing
from lab.harness.mailbox import Arrival
from tests.support.records import arrived, asked

# The account


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
    assert promised.text() == "lost 0; twice ≤ 50 a fault; back within 10 s"
    assert list(back_too_late(promised, 9_900.0)) == []
    assert list(back_too_late(promised, 10_100.0)) == ["back after 10.1 s, promised: within 10 s"]
    assert list(back_too_late(promise("6j", "nats-kill"), 60_000.0)) == []
    assert set(faults_of(SUBJECTS["6jc"])) == {"none", "worker-kill", "all-term", "node-kill", "node-disk"}


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
