"""Remarks on a comparison: what limits the figures, and what went wrong."""

from collections.abc import Iterator

from lab.compare.compare_report import milliseconds
from lab.compare.plan import SESSIONS, Plan
from lab.compare.rounds import Line

MAX_LATE_SHARE = {50: 0.1, 99: 0.5}
"""For each percentile: if the load generator's own delay is a larger share of the answer's time, warn."""
MAX_CPU = 0.8  # of a core: above this the load generator may be the limit


def remarks(plan: Plan, lines: list[Line]) -> Iterator[str]:
    """The first remark says whether the load generator itself was the limit."""
    generators = [line.facts["generator"] for line in lines]
    p50, p99, cpu = (max(facts[name] for facts in generators) for name in ("late_p50_ms", "late_p99_ms", "cpu"))
    yield (
        f"the load generator was {p50:.2f} ms late at p50 and {p99:.1f} ms at p99, which the times include, "
        f"and used {cpu:.0%} of one core" + (": it may have been the limit" if cpu > MAX_CPU else "")
    )
    for line in lines:
        yield from lateness(line)
    if plan.rate > plan.max_rate:
        limit = f"the {plan.max_rate:.0f} that the mail server accepts in {SESSIONS} sessions"
        yield f"{plan.rate:g} emails per second are more than {limit}, so emails wait"
    for line in lines:
        yield from remarks_on(line, plan)
    yield "memory is resident memory: pages that several processes share, such as Python's own, are counted for each"


def lateness(line: Line) -> Iterator[str]:
    for percent, share in MAX_LATE_SHARE.items():
        late, answer = line.facts["generator"][f"late_p{percent}_ms"], line.facts[f"answer_p{percent}_ms"]
        if answer is not None and late > share * answer:
            times = f"{milliseconds(late)} of the {milliseconds(answer)} ms at p{percent}"
            yield f"{line.name}: {times} are a delay of the load generator or of a busy machine"


def remarks_on(line: Line, plan: Plan) -> Iterator[str]:
    facts = line.facts
    answer = facts["burst_answer_p50_ms"]
    if answer is not None and answer >= plan.latency_ms > 0 and plan.clients < SESSIONS:
        clients = f"{plan.clients} clients that wait {milliseconds(answer)} ms for each answer"
        rate = f"{plan.clients * 1000 / answer:.0f} requests per second"
        yield f"{line.name}: {clients} send {rate}, which is the limit here"
    if facts["attempted"] > facts["acknowledged"]:
        refused = facts["attempted"] - facts["acknowledged"]
        yield f"{line.name}: {refused} of {facts['attempted']} requests were not accepted"
    if facts["unexpected"]:
        yield f"{line.name}: {facts['unexpected']} emails arrived without a request"
