"""Delivering: emails per second from the first request to the last email at a fast mail server, each exactly once."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from lab.bench.mailer import SESSIONS, converse
from lab.harness.account import compare_ids
from lab.harness.exactly_once import describe_ids, exactly_once, request_emails
from lab.harness.figures import Facts, Row, in_turns
from lab.harness.frozen import frozen
from lab.harness.processes import Lab
from lab.harness.sinks import LabSink, lab_sink, url_of, wait_for_mail
from lab.harness.strategies import Strategy, strategy

EMAILS = 20_000  # in a round
WARM_UP = 1000
BARE_SECONDS = 1.0

MIN_RATE = 4000  # emails per second
WAITING = 20_000  # emails that wait when a worker begins
MIN_OF_STRATEGY_3 = 0.7

WORKERS = {3: "email worker", 5: "worker", 6: "worker"}
"""The role that sends."""


def delivering(number: int, lab: Lab) -> Iterator[Row]:
    with lab_sink(lab) as sink, lab_sink(lab) as other, strategy(lab, number, url_of(sink)) as server:
        lab.say("warming up")
        warm_up = deliver(lab, server, sink, WARM_UP)
        rounds = in_turns(
            lab.say,
            lambda: deliver(lab, server, sink, EMAILS),
            lambda: converse(lab, other, SESSIONS, BARE_SECONDS),
        )
        loads = [warm_up, *rounds.ours]
        account = compare_ids([email_id for facts in loads for email_id in facts.pop("ids")], sink.ids())
    refused = {status for facts in loads for status in facts["statuses"]} - {"202"}
    yield Row(
        name=f"strategy {number} delivers",
        unit="emails/s",
        rounds=rounds,
        against="bare SMTP",
        target=f"≥ {MIN_RATE:,}",
        met=rounds.measured.median >= MIN_RATE and not refused and exactly_once(account, *loads),
        notes=(
            f"rounds of {EMAILS:,} emails, from the first request to the last final dot at {sink.name}",
            describe_ids(account, *loads) + (f"; other answers: {', '.join(sorted(refused))}" if refused else ""),
        ),
        details=asdict(account),
    )


def deliver(lab: Lab, server: Strategy, sink: LabSink, count: int) -> Facts:
    """The facts of the load. `rate` and `seconds` are those of the delivery."""
    before = sink.count()
    facts = request_emails(lab, server.port, count)
    wait_for_mail(sink, before + len(facts["ids"]))
    last = max((moment for _, moment in sink.arrivals()[before:]), default=0)
    seconds = (last - min(facts.pop("asked_ns"), default=0)) / 1e9
    return facts | {"accepting_rate": facts["rate"], "seconds": seconds, "rate": (sink.count() - before) / seconds}


def one_worker(number: int, lab: Lab) -> Iterator[Row]:
    """The rate of one worker process whose emails already wait, in turns with a worker of strategy 3."""
    own, other = Lab(lab.folder / "own", lab.say), Lab(lab.folder / "other", lab.say)
    for each in (own, other):
        each.folder.mkdir()
    with (
        lab_sink(own) as sink,
        lab_sink(other) as other_sink,
        strategy(own, number, url_of(sink)) as ours,
        strategy(other, 3, url_of(other_sink)) as reference,
    ):
        lab.say("warming up")
        warm_ups = [deliver(own, ours, sink, WARM_UP), deliver(other, reference, other_sink, WARM_UP)]
        rounds = in_turns(
            lab.say,
            lambda: deliver_waiting(own, ours, sink),
            lambda: deliver_waiting(other, reference, other_sink),
        )
        loads = [*warm_ups, *rounds.ours, *rounds.bare]
        delivered = sink.ids() + other_sink.ids()
        account = compare_ids([email_id for facts in loads for email_id in facts.pop("ids")], delivered)
    yield Row(
        name=f"a worker of strategy {number}",
        unit="emails/s",
        rounds=rounds,
        against="a worker of strategy 3",
        target=f"ratio ≥ {MIN_OF_STRATEGY_3:g}",
        met=rounds.ratio.median >= MIN_OF_STRATEGY_3 and exactly_once(account, *loads),
        notes=(
            f"rounds of {WAITING:,} emails that wait when the worker begins; the rate of the second half",
            describe_ids(account, *loads),
        ),
        details=asdict(account),
    )


def deliver_waiting(lab: Lab, server: Strategy, sink: LabSink) -> Facts:
    """The facts of the load, sent while the worker is stopped; `rate` and `seconds` are those of the second half.

    When a worker of strategy 5 continues, it measures that its event loop was late by the whole stop. So it takes fewer
    jobs at a time for most of a second (resque/scaling.py). That is not its usual rate, so the first half does not
    count for any strategy.
    """
    pid, before = server.pid(WORKERS[server.number]), sink.count()
    assert pid is not None
    with frozen(pid):
        facts = request_emails(lab, server.port, WAITING)
    wait_for_mail(sink, before + len(facts["ids"]))
    server.wait_until_empty()
    del facts["asked_ns"]
    return facts | {"accepting_rate": facts["rate"]} | second_half([moment for _, moment in sink.arrivals()[before:]])


def second_half(arrivals: Sequence[int]) -> Facts:
    """The rate of the second half of the emails (perf_counter_ns), and the seconds from its first to its last."""
    half = arrivals[len(arrivals) // 2 :]
    seconds = (half[-1] - half[0]) / 1e9
    return {"seconds": seconds, "rate": (len(half) - 1) / seconds}
