"""Delivering: emails per second from the first request to the last email at a fast mail server, each exactly once."""

from collections.abc import Iterator
from dataclasses import asdict

from lab.bench.mailer import SESSIONS, converse
from lab.harness.account import compare_ids
from lab.harness.exactly_once import describe_ids, exactly_once, request_emails
from lab.harness.figures import Facts, Row, in_turns
from lab.harness.processes import Lab
from lab.harness.sinks import LabSink, lab_sink, url_of, wait_for_mail
from lab.harness.strategies import Strategy, strategy

EMAILS = 20_000  # in a round
WARM_UP = 1000
BARE_SECONDS = 1.0

MIN_RATE = 4000  # emails per second


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
