"""The judge of `make faults`: which losses and copies a fault explains, and which break a promise."""

import sys
from dataclasses import replace

import pytest

from lab.faults.cell import too_late
from lab.faults.judge import broken_promises
from lab.faults.lanes import Lane
from lab.faults.promises import Bound, GivenUp, Promise
from lab.harness.account import Account, Counters, Injection, account
from lab.harness.counters import queued_at_worker
from lab.harness.mailbox import Arrival
from lab.harness.processes import Lab
from lab.load.steady import Record
from tests.support.records import arrived, asked

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
