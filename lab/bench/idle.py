"""From idle: how long after a single request its email is at the mail server, when no other request is in flight.

Two processes read the two times from the same clock: on Linux perf_counter_ns is CLOCK_MONOTONIC.
"""

from collections.abc import Iterator

from lab.bench.web import bare_web
from lab.harness.figures import Facts, Rounds, Row, in_turns, percentile
from lab.harness.processes import Lab
from lab.harness.sinks import LabSink, lab_sink, url_of, wait_for_mail
from lab.harness.strategies import strategy

REQUESTS = 70  # in a round, on either side
PAUSE_MS = 10.0  # the mean. Each pause has at least half of it

MAX_MS = 5.0


def from_idle(number: int, lab: Lab) -> Iterator[Row]:
    with lab_sink(lab) as sink, strategy(lab, number, url_of(sink)) as server, bare_web(lab, "handler") as handler:
        found = in_turns(
            lab.say,
            lambda: times_to_sink(lab, server.port, sink),
            lambda: ask_singly(lab, handler.port),
        )
    rounds = Rounds(found.ours, found.bare, figure=lambda facts: float(facts["p50_ms"]))
    worst = max(facts["worst_ms"] for facts in rounds.ours)
    lost, busy, refused = (sum(facts[name] for facts in rounds.ours) for name in ("lost", "busy", "refused"))
    has_target = number > 2  # strategies 1 and 2 are measured for comparison
    yield Row(
        name=f"strategy {number} from idle",
        unit="ms to the sink",
        rounds=rounds,
        against="answer of bare aiohttp",
        target=f"≤ {MAX_MS:g} ms" if has_target else "none",
        met=lost == refused == 0 and (not has_target or rounds.measured.median <= MAX_MS),
        notes=(
            f"from the request to the final dot, medians of {REQUESTS} requests, a few ms apart; worst {worst:.1f} ms",
            f"{lost} lost, {refused} not accepted; {busy} requested before the previous email had arrived",
        ),
    )


def times_to_sink(lab: Lab, port: int, sink: LabSink) -> Facts:
    """The facts of the load. The times are those from the request to the final dot."""
    before = sink.count()
    facts = ask_singly(lab, port, "--ids")
    wait_for_mail(sink, before + REQUESTS)
    asked = dict(zip(facts.pop("ids"), facts.pop("asked_ns"), strict=True))
    return facts | compare_moments(asked, sink.arrivals()) | {"refused": REQUESTS - len(asked)}


def compare_moments(asked: dict[str, int], arrivals: list[tuple[str, int]]) -> Facts:
    """Times in ms from moments in ns. `busy` counts requests that were sent while an email was in flight."""
    arrived = dict(reversed(arrivals))  # the first copy counts
    times = [(arrived[email_id] - moment) / 1e6 for email_id, moment in asked.items() if email_id in arrived]
    pairs = zip(asked, list(asked.values())[1:], strict=False)
    return {
        "p50_ms": percentile(times, 50),
        "p99_ms": percentile(times, 99),
        "worst_ms": percentile(times, 100),
        "lost": len(asked) - len(times),
        "busy": sum(arrived.get(email_id, 0) > next_moment for email_id, next_moment in pairs),
    }


def ask_singly(lab: Lab, port: int, *more: str) -> Facts:
    options = ("--port", port, "--connections", 1, "--count", REQUESTS, "--pause-ms", PAUSE_MS)
    return lab.measure("lab.load.http", *options, *more)
