"""The mailer alone: emails per second, and round trips per email."""

from collections.abc import Iterator

from lab.harness.figures import Facts, Rounds, Row, describe_account, in_turns
from lab.harness.processes import Lab
from lab.harness.sinks import CountingSink, fastest_sink, lab_sink, url_of

SECONDS = 2.0  # of each round, on either side
SENDERS = 50
SESSIONS = 20  # the default of SMTP_SESSIONS
LATENCY_MS = 50.0

MIN_RATE = 5000  # emails per second
MAX_ROUND_TRIPS = 1.2  # one, and some tolerance for timers
MAX_BUSY_ROUND_TRIPS = 1.1
BUSY_SECONDS = 4.0


def mailer(lab: Lab) -> Iterator[Row]:
    """Emails of 200 bytes from one process, each to a different recipient."""
    with fastest_sink(lab) as sink:
        rounds = in_turns(
            lab.say,
            lambda: send(lab, sink, SENDERS, SECONDS),
            lambda: converse(lab, sink, SESSIONS, SECONDS),
        )
        arrived = sink.count()
    missing = sum(facts["sent"] for facts in rounds.ours + rounds.bare) - arrived
    yield Row(
        name="mailer",
        unit="emails/s",
        rounds=rounds,
        against="bare SMTP",
        target=f"≥ {MIN_RATE:,}",
        met=rounds.measured.median >= MIN_RATE and missing == 0,
        notes=(
            f"{SENDERS} senders, {SESSIONS} sessions to {sink.name}; {rounds.times()}",
            describe_account(missing, arrived),
        ),
        details={"sink": sink.name, "arrived": arrived},
    )


def round_trips(lab: Lab) -> Iterator[Row]:
    """The time of one email in an open session with round trips of 50 ms, divided by 50 ms.

    The reference sends with DATA, as a client without CHUNKING does: two round trips.
    """
    with lab_sink(lab, LATENCY_MS) as sink:
        lab.say(f"one sender, {LATENCY_MS:g} ms each round trip")
        found = in_turns(lab.say, lambda: send(lab, sink, 1, 1.0), lambda: converse(lab, sink, 1, 1.0))
    rounds = Rounds(found.ours, found.bare, figure=lambda facts: float(facts["p50_ms"]) / LATENCY_MS)
    worst = max(facts["p50_ms"] for facts in found.ours)
    yield Row(
        name="round trips",
        unit="per email",
        rounds=rounds,
        against="bare SMTP",
        target=f"≤ {MAX_ROUND_TRIPS:g}",
        met=rounds.measured.median <= MAX_ROUND_TRIPS,
        notes=(f"{LATENCY_MS:g} ms each, by {sink.name}; an email in an open session: p50 {worst:.1f} ms at worst",),
        details={"sink": sink.name, "latency_ms": LATENCY_MS},
    )


def busy_round_trips(lab: Lab) -> Iterator[Row]:
    """The time of one email in a session that always has a next one, divided by the time of a round trip.

    The server offers PIPELINING without CHUNKING. The reference sends one email after the other: two round trips.
    """
    with lab_sink(lab, LATENCY_MS, chunking=False) as sink:
        lab.say(f"ten senders share one session without CHUNKING, {LATENCY_MS:g} ms each round trip")
        found = in_turns(
            lab.say,
            lambda: send(lab, sink, 10, BUSY_SECONDS, sessions=1),
            lambda: converse(lab, sink, 1, 1.0),
        )
        arrived = sink.count()
    missing = sum(facts["sent"] for facts in found.ours + found.bare) - arrived
    rounds = Rounds(found.ours, found.bare, figure=lambda facts: 1000 / float(facts["rate"]) / LATENCY_MS)
    yield Row(
        name="round trips, busy, without CHUNKING",
        unit="per email",
        rounds=rounds,
        against="bare SMTP",
        target=f"≤ {MAX_BUSY_ROUND_TRIPS:g}",
        met=rounds.measured.median <= MAX_BUSY_ROUND_TRIPS and missing == 0,
        notes=(f"{LATENCY_MS:g} ms each, by {sink.name}", describe_account(missing, arrived)),
        details={"sink": sink.name, "latency_ms": LATENCY_MS, "arrived": arrived},
    )


def send(lab: Lab, sink: CountingSink, senders: int, seconds: float, sessions: int = SESSIONS) -> Facts:
    options = ("--senders", senders, "--seconds", seconds)
    return lab.measure("lab.load.mailer", *options, SMTP_URL=url_of(sink), SMTP_SESSIONS=sessions)


def converse(lab: Lab, sink: CountingSink, sessions: int, seconds: float) -> Facts:
    return lab.measure("lab.load.smtp", "--port", sink.port, "--sessions", sessions, "--seconds", seconds)
