"""The web servers: requests per second, beside a handler that does nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lab.harness.figures import Facts, Row, describe_account, in_turns
from lab.harness.processes import Lab, python
from lab.harness.sinks import fastest_sink, url_of
from lab.harness.strategies import strategy

SECONDS = 2.0  # of each round, on either side
CONNECTIONS = 50

MIN_RATE = 3000  # requests per second for strategy 1
MIN_HEADROOM = 1.5  # the load generator's rate / that of the fastest server that it measures


def load_generator(lab: Lab) -> Iterator[Row]:
    """How fast the load generator can send requests. It must not be the limit of the other rows."""
    with bare_web(lab, "raw") as raw, bare_web(lab, "handler") as handler:
        rounds = in_turns(lab.say, lambda: load(lab, raw.port, 1.0), lambda: load(lab, handler.port, 1.0))
    yield Row(
        name="load generator",
        unit="requests/s",
        rounds=rounds,
        against="bare aiohttp",
        target=f"ratio ≥ {MIN_HEADROOM:g}",
        met=rounds.ratio.median >= MIN_HEADROOM and all_answered(200, *rounds.ours, *rounds.bare),
        notes=(f"{CONNECTIONS} connections to a server that answers every request with the same bytes",),
    )


def foreground(lab: Lab) -> Iterator[Row]:
    """Strategy 1: the answer waits for the mail server."""
    with fastest_sink(lab) as sink, strategy(lab, 1, url_of(sink)) as server, bare_web(lab, "handler") as handler:
        lab.say("warming up")
        warm_up = load(lab, server.port, 0.5)
        rounds = in_turns(lab.say, lambda: load(lab, server.port, SECONDS), lambda: load(lab, handler.port, SECONDS))
        arrived = sink.count()
    all_200 = all_answered(200, warm_up, *rounds.ours, *rounds.bare)
    missing = sum(facts["statuses"].get("200", 0) for facts in (warm_up, *rounds.ours)) - arrived
    yield Row(
        name="1_foreground",
        unit="requests/s",
        rounds=rounds,
        against="bare aiohttp",
        target=f"≥ {MIN_RATE:,}",
        met=rounds.measured.median >= MIN_RATE and missing == 0 and all_200,
        notes=(
            f"{CONNECTIONS} connections, mail to {sink.name}; {rounds.times()}",
            f"{'all answers are 200' if all_200 else 'not all answers are 200'}; {describe_account(missing, arrived)}",
        ),
        details={"sink": sink.name, "arrived": arrived},
    )


@dataclass(frozen=True)
class BareWeb:
    """One of the servers of lab/load/bare_web.py."""

    port: int
    pid: int


@contextmanager
def bare_web(lab: Lab, kind: str, status: int = 200) -> Iterator[BareWeb]:
    with lab.child(python("lab.load.bare_web", kind, "--status", status), f"bare-{kind}") as child:
        yield BareWeb(int(child.wait_for(r"(\d+)\n")), child.process.pid)


def load(lab: Lab, port: int, seconds: float) -> Facts:
    return lab.measure("lab.load.http", "--port", port, "--connections", CONNECTIONS, "--seconds", seconds)


def all_answered(status: int, *answers: Facts) -> bool:
    """Whether every answer of these loads had this status, and no connection broke."""
    return all(list(facts["statuses"]) == [str(status)] and not facts["broken"] for facts in answers)
