"""A burst: more emails at once than the mail server accepts. Each accepted email must arrive exactly once."""

from collections.abc import Iterator
from dataclasses import asdict

from lab.bench.web import bare_web
from lab.harness.account import compare_ids
from lab.harness.exactly_once import describe_ids, exactly_once, request_emails
from lab.harness.figures import Rounds, Row
from lab.harness.machine import resident_bytes
from lab.harness.processes import Lab
from lab.harness.sinks import lab_sink, url_of
from lab.harness.strategies import strategy

BURST = 20_000  # emails
WARM_UP = 1000


def parallel(lab: Lab) -> Iterator[Row]:
    return burst(lab, 2, "2_parallel")


def burst(lab: Lab, number: int, name: str) -> Iterator[Row]:
    """Request 20,000 emails, and compare the ids in the answers with those at the sink.

    The clients ignore Retry-After: after a 503 they send the next request at once.
    """
    with lab_sink(lab) as sink, strategy(lab, number, url_of(sink)) as server, bare_web(lab, "handler") as handler:
        lab.say("warming up")
        warm_up = request_emails(lab, server.port, WARM_UP)
        server.wait_until_empty()
        memory = Memory(server.pids())
        lab.say(f"{BURST:,} emails")
        ours = request_emails(lab, server.port, BURST, memory.sample)
        server.wait_until_empty()
        delivered = sink.ids()
        lab.say("the same, with a bare handler")
        bare = request_emails(lab, handler.port, BURST)
    del bare["ids"], bare["asked_ns"], warm_up["asked_ns"], ours["asked_ns"]
    account = compare_ids(warm_up.pop("ids") + ours.pop("ids"), delivered)
    statuses, mib = ours["statuses"], memory.growth / 2**20
    yield Row(
        name=name,
        unit="answers/s",
        rounds=Rounds([ours], [bare]),
        against="bare aiohttp",
        target="exactly once",
        met=exactly_once(account, warm_up, ours) and set(statuses) <= {"202", "503"},
        notes=(
            f"burst of {BURST:,} in {ours['seconds']:.1f} s: {statuses.get('202', 0):,} accepted (202), "
            f"{statuses.get('503', 0):,} rejected (503); memory +{mib:.1f} MiB",
            describe_ids(account, warm_up, ours),
        ),
        details={"sink": sink.name, "memory_growth_bytes": memory.growth, **asdict(account)},
    )


class Memory:
    """The largest growth of the processes' memory, in bytes, among the samples."""

    def __init__(self, pids: list[int]) -> None:
        self.growth = 0
        self._pids = pids
        self._before = resident_bytes(pids)

    def sample(self) -> None:
        self.growth = max(self.growth, resident_bytes(self._pids) - self._before)
