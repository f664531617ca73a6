"""What it costs to wait for a replica: `ACK_REPLICAS=1` beside the same set-up without it."""

from collections.abc import Iterator

from lab.bench.accepting import MIN_RATIO
from lab.bench.web import CONNECTIONS, all_answered
from lab.harness.figures import Facts, Row, in_turns
from lab.harness.processes import Lab
from lab.harness.sinks import lab_sink, url_of
from lab.harness.strategies import strategy

REQUESTS = 5000  # in a round, on either side


def acknowledging(number: int, lab: Lab) -> Iterator[Row]:
    """Both have a primary, two replicas and three sentinels of their own, and send one email per second."""
    own, other = Lab(lab.folder / "with", lab.say), Lab(lab.folder / "without", lab.say)
    for each in (own, other):
        each.folder.mkdir()
    settings = {"EMAILS_PER_SECOND": 1, "DRAIN_SECONDS": 0.1, "REDIS": "sentinel"}
    with (
        lab_sink(lab) as sink,
        strategy(own, number, url_of(sink), ACK_REPLICAS=1, **settings) as waiting,
        strategy(other, number, url_of(sink), **settings) as reference,
    ):
        warm_up = [accept(lab, server.port) for server in (waiting, reference)]
        rounds = in_turns(lab.say, lambda: accept(lab, waiting.port), lambda: accept(lab, reference.port))
    all_202 = all_answered(202, *warm_up, *rounds.ours, *rounds.bare)
    yield Row(
        name=f"strategy {number} with ACK_REPLICAS=1",
        unit="requests/s",
        rounds=rounds,
        against="without it",
        target=f"ratio ≥ {MIN_RATIO:g}",
        met=rounds.ratio.median >= MIN_RATIO and all_202,
        notes=(
            f"{CONNECTIONS} connections; {rounds.times()}; {'all' if all_202 else 'NOT ALL'} answers are 202",
            "a primary, two replicas and three sentinels on this machine",
        ),
    )


def accept(lab: Lab, port: int) -> Facts:
    return lab.measure("lab.load.http", "--port", port, "--connections", CONNECTIONS, "--count", REQUESTS)
