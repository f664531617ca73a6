"""Accepting: requests per second that are answered 202, beside a bare handler that gives the same answer.

A throttle lets the strategy send one email per second, so sending hardly competes for the cores, and a backlog grows.
The same rounds show whether accepting slows down with the backlog, and how much memory a waiting email takes.
"""

from collections.abc import Iterator
from statistics import median

from lab.bench.web import CONNECTIONS, all_answered, bare_web
from lab.harness.figures import Facts, Rounds, Row, in_turns
from lab.harness.machine import cpu_seconds, resident_bytes
from lab.harness.processes import Lab
from lab.harness.sinks import lab_sink, url_of
from lab.harness.strategies import Strategy, strategy
from lab.load.http import TEXT

ROUNDS = 7
REQUESTS = 15_000  # in a round, on either side
WARM_UP = 2000

MIN_RATIO = 0.6
MIN_RATIO_OF = {5: 0.65}  # where it differs
# The CPU time of a request in the last round / that in the first. Other programs on the machine alone can make it 1.3.
# A cost that grows with the queue's length would make it far larger, with 75,000 emails between the two rounds.
MAX_SLOWDOWN = 1.5
MAX_MEGABYTES = 100  # 10^6 bytes for 100,000 emails with 200 bytes of text

QUEUE_ROLE = {3: "master"}  # the role that has the waiting emails in its memory


def accepting(number: int, lab: Lab) -> Iterator[Row]:
    """Rounds of 15,000 requests, in turns with the bare handler, until 105,000 emails wait."""
    throttled = {"EMAILS_PER_SECOND": 1, "DRAIN_SECONDS": 0.1}
    with (
        lab_sink(lab) as sink,
        strategy(lab, number, url_of(sink), **throttled) as server,
        bare_web(lab, "handler", 202) as handler,
    ):
        roles = server.roles()
        lab.say("warming up")
        warm_up = load_by_role(lab, server.port, roles, WARM_UP)
        before = queue_bytes(server)
        rounds = in_turns(
            lab.say,
            lambda: load_by_role(lab, server.port, roles, REQUESTS),
            lambda: load_by_role(lab, handler.port, {handler.pid: "handler"}, REQUESTS),
            ROUNDS,
        )
        grown = queue_bytes(server) - before
    yield rate(number, rounds, all_202=all_answered(202, warm_up, *rounds.ours, *rounds.bare))
    if number in QUEUE_ROLE:
        yield backlog(number, rounds)
        yield memory(number, grown)


def rate(number: int, rounds: Rounds, *, all_202: bool) -> Row:
    minimum = MIN_RATIO_OF.get(number, MIN_RATIO)
    return Row(
        name=f"strategy {number} accepts",
        unit="requests/s",
        rounds=rounds,
        against="bare aiohttp",
        target=f"ratio ≥ {minimum:g}",
        met=rounds.ratio.median >= minimum and all_202,
        notes=(
            f"{ROUNDS} rounds, {CONNECTIONS} connections; {rounds.times()}; "
            f"{'all' if all_202 else 'NOT ALL'} answers are 202",
            f"CPU time of a request: {cpu_by_role(rounds.ours)}; {cpu_by_role(rounds.bare)}",
        ),
    )


def backlog(number: int, rounds: Rounds) -> Row:
    """Compares CPU time, which other programs on the machine distort little. The rate goes into the note."""
    cpu = Rounds(rounds.ours[-1:], rounds.ours[:1], figure=lambda facts: float(sum(facts["cpu_us"].values())))
    first, *_, last = [a["rate"] / b["rate"] for a, b in zip(rounds.ours, rounds.bare, strict=True)]
    return Row(
        name=f"strategy {number} with a backlog",
        unit="CPU µs/request",
        rounds=cpu,
        against="the first round",
        target=f"ratio ≤ {MAX_SLOWDOWN:g}",
        met=cpu.ratio.median <= MAX_SLOWDOWN,
        notes=(
            f"the last {REQUESTS:,} of {ROUNDS * REQUESTS:,} beside the first; as a fraction of the bare handler's "
            f"rate {last:.2f} beside {first:.2f}",
        ),
    )


def memory(number: int, grown: int) -> Row:
    emails = ROUNDS * REQUESTS
    text = Rounds(
        [{"megabytes": grown / 1e6}], [{"megabytes": emails * len(TEXT) / 1e6}], lambda f: float(f["megabytes"])
    )
    return Row(
        name=f"strategy {number} memory",
        unit="MB",
        rounds=text,
        against="the texts alone",
        target=f"≤ {MAX_MEGABYTES} MB",
        met=text.measured.median <= MAX_MEGABYTES,
        notes=(f"the growth of the {QUEUE_ROLE[number]}'s resident memory by {emails:,} waiting emails",),
    )


def load_by_role(lab: Lab, port: int, roles: dict[int, str], count: int) -> Facts:
    """The facts of the load, and in `cpu_us` the CPU time that each role spent on a request, in µs."""
    before = {pid: cpu_seconds(pid) for pid in roles}
    facts = lab.measure("lab.load.http", "--port", port, "--connections", CONNECTIONS, "--count", count)
    spent: dict[str, float] = dict.fromkeys(roles.values(), 0.0)
    for pid, role in roles.items():
        spent[role] += (cpu_seconds(pid) - before[pid]) / count * 1e6
    return facts | {"cpu_us": spent}


def cpu_by_role(rounds: list[Facts]) -> str:
    """Medians, the highest first."""
    medians = {role: median([facts["cpu_us"][role] for facts in rounds]) for role in rounds[0]["cpu_us"]}
    return ", ".join(f"{role} {us:.0f} µs" for role, us in sorted(medians.items(), key=lambda item: -item[1]))


def queue_bytes(server: Strategy) -> int:
    """The resident memory of the process that holds the queue; 0 if that is not a role of the strategy."""
    queue_role = QUEUE_ROLE.get(server.number)
    return resident_bytes([pid for pid, role in server.roles().items() if role == queue_role])
