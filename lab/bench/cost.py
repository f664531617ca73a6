"""The CPU time that each process spends on an email, from the request to the mail server's 250.

A machine with few cores cannot show how a strategy grows, but CPU time can: it is what a core of a larger machine would
spend. It varies less than rates when other programs run.
"""

from collections.abc import Iterator
from dataclasses import asdict
from statistics import median

from lab.bench.accepting import cpu_by_role, load_by_role
from lab.bench.delivering import deliver
from lab.bench.web import bare_web
from lab.harness.account import compare_ids
from lab.harness.exactly_once import describe_ids, exactly_once
from lab.harness.figures import Facts, Rounds, Row, in_turns
from lab.harness.machine import cpu_seconds
from lab.harness.processes import Lab
from lab.harness.sinks import LabSink, lab_sink, url_of
from lab.harness.strategies import Strategy, strategy

EMAILS = 10_000  # in a round
WARM_UP = 1000


def cost(number: int, lab: Lab) -> Iterator[Row]:
    with lab_sink(lab) as sink, strategy(lab, number, url_of(sink)) as server, bare_web(lab, "handler") as handler:
        lab.say("warming up")
        warm_up = deliver(lab, server, sink, WARM_UP)
        rounds = in_turns(
            lab.say,
            lambda: cpu_of_delivery(lab, server, sink),
            lambda: load_by_role(lab, handler.port, {handler.pid: "handler"}, EMAILS),
        )
        loads = [warm_up, *rounds.ours]
        account = compare_ids([email_id for facts in loads for email_id in facts.pop("ids")], sink.ids())
    yield Row(
        name=f"strategy {number} costs",
        unit="CPU µs/email",
        rounds=Rounds(rounds.ours, rounds.bare, figure=lambda facts: float(sum(facts["cpu_us"].values()))),
        against="an answer of bare aiohttp",
        target="exactly once",
        met=exactly_once(account, *loads),
        notes=(cpu_by_role(rounds.ours), describe_ids(account, *loads)),
        details={"cpu_us": medians(rounds.ours), **asdict(account)},
    )


def cpu_of_delivery(lab: Lab, server: Strategy, sink: LabSink, count: int = EMAILS) -> Facts:
    """The facts of a delivery, and in `cpu_us` the CPU time that each role spent on an accepted email, in µs."""
    roles = server.roles()
    before = {pid: cpu_seconds(pid) for pid in roles}
    facts = deliver(lab, server, sink, count)
    server.wait_until_empty()
    spent: dict[str, float] = dict.fromkeys(roles.values(), 0.0)
    for pid, role in roles.items():
        spent[role] += (cpu_seconds(pid) - before[pid]) / len(facts["ids"]) * 1e6
    return facts | {"cpu_us": spent}


def medians(rounds: list[Facts]) -> dict[str, float]:
    return {role: median([facts["cpu_us"][role] for facts in rounds]) for role in rounds[0]["cpu_us"]}
