"""Strategies 5 and 6 on other engines (Streams, RabbitMQ, JetStream), each beside the same strategy on its own engine.

Both sides run at the same time and are measured in turns. Each engine writes to disk before it answers.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

from lab.bench.accepting import cpu_by_role, load_by_role
from lab.bench.cost import cpu_of_delivery
from lab.bench.delivering import deliver
from lab.bench.idle import REQUESTS, times_to_sink
from lab.bench.web import CONNECTIONS, all_answered
from lab.faults.promises import SUBJECTS
from lab.harness.account import compare_ids
from lab.harness.engines import missing
from lab.harness.exactly_once import describe_ids, exactly_once
from lab.harness.figures import Facts, Rounds, Row, in_turns
from lab.harness.machine import resident_bytes
from lab.harness.processes import ROOT, Lab
from lab.harness.sinks import LabSink, lab_sink, url_of
from lab.harness.strategies import Strategy, strategy

EMAILS = 2000  # in a round
ACCEPTED = 2000
WARM_UP = 500

ENGINES = {"5r": "5", "6s": "6", "6j": "6"}
"""The subject of `make faults`, and the one that is its reference."""
BROKERS = ("valkey", "rabbitmq", "nats")
LOG_IN_REDIS = (*(f"eventlog/{name}.py" for name in ("log", "leases", "parked", "delays", "counts", "registration")),)
PARKING = ("eventlog/lua/*park*.lua", "eventlog/lua/add.lua", "eventlog/lua/discard.lua", "eventlog/lua/re[gn]*.lua")
SOURCES = {
    "5": ("resque/*.py", "resque/scripts/*.lua"),
    "5r": ("common/amqp/*.py", "5_remote_queue/rabbitmq.py"),
    "6": (
        *LOG_IN_REDIS,
        *(f"eventlog/{name}.py" for name in ("partitions", "appender", "reader", "inspection")),
        *("eventlog/lua/[!s]*.lua", "eventlog/lua/se*.lua"),
    ),
    "6s": (*LOG_IN_REDIS, "eventlog/streams.py", "eventlog/lua/stream_*.lua", *PARKING),
    "6j": ("eventlog/jetstream*.py", "eventlog/nats_*.py", "6_event_bus/jetstream.py"),
}
"""The code of each engine, without its pages."""

Sides = tuple[tuple[Strategy, LabSink], tuple[Strategy, LabSink]]


def benchmarks() -> dict[str, "partial[Iterator[Row]]"]:
    """The benchmarks whose engine is installed on this machine."""
    return {SUBJECTS[name].title: partial(engine, name) for name in ENGINES if missing(SUBJECTS[name].settings) is None}


def skipped() -> list[str]:
    """One line for each engine that is not installed on this machine."""
    reasons = {name: missing(SUBJECTS[name].settings) for name in ENGINES}
    return [f"{SUBJECTS[name].title} is skipped: {reason}" for name, reason in reasons.items() if reason]


def engine(name: str, lab: Lab) -> Iterator[Row]:
    with both_sides(lab, name) as sides:
        yield from deliveries(lab, name, sides)
        yield from_idle(lab, name, sides)
    with both_sides(lab, name, {"EMAILS_PER_SECOND": 1, "DRAIN_SECONDS": 0.1}) as sides:
        yield from accepting(lab, name, sides)
    yield lines_of_code(name)


@contextmanager
def both_sides(lab: Lab, name: str, settings: Mapping[str, object] | None = None) -> Iterator[Sides]:
    """The strategy on this engine and on its own, each with a mail server and a data folder of its own."""
    with ExitStack() as stack:
        found = []
        for subject in (SUBJECTS[name], SUBJECTS[ENGINES[name]]):
            folder = lab.folder / f"{subject.title.replace(' ', '-')}-{len(list(lab.folder.iterdir()))}"
            folder.mkdir()
            sink = stack.enter_context(lab_sink(lab))
            all_settings = {**subject.settings, **(settings or {})}
            context = strategy(Lab(folder, lab.say), subject.number, url_of(sink), **all_settings)
            found.append((stack.enter_context(context), sink))
        yield found[0], found[1]


def row(name: str, what: str, unit: str, rounds: Rounds, met: bool, *notes: str, **details: object) -> Row:
    reference = SUBJECTS[ENGINES[name]].title
    return Row(f"{SUBJECTS[name].title}, {what}", unit, rounds, reference, "none", met, notes, details)


def deliveries(lab: Lab, name: str, sides: Sides) -> Iterator[Row]:
    (server, sink), (other, other_sink) = sides
    lab.say("warming up")
    warm_up = deliver(lab, server, sink, WARM_UP)
    deliver(lab, other, other_sink, WARM_UP)
    rounds = in_turns(
        lab.say,
        lambda: cpu_of_delivery(lab, server, sink, EMAILS),
        lambda: cpu_of_delivery(lab, other, other_sink, EMAILS),
    )
    loads = [warm_up, *rounds.ours]
    account = compare_ids([email_id for facts in loads for email_id in facts.pop("ids")], sink.ids())
    for facts in rounds.bare:
        del facts["ids"]
    met, about = exactly_once(account, *loads), describe_ids(account, *loads)
    yield row(name, "delivers", "emails/s", rounds, met, f"rounds of {EMAILS:,} emails; {about}", **asdict(account))
    cpu = Rounds(rounds.ours, rounds.bare, lambda facts: float(sum(facts["cpu_us"].values())))
    yield row(name, "costs", "CPU µs/email", cpu, met, f"{cpu_by_role(rounds.ours)}; {cpu_by_role(rounds.bare)}")


def from_idle(lab: Lab, name: str, sides: Sides) -> Row:
    (server, sink), (other, other_sink) = sides
    found = in_turns(
        lab.say, lambda: times_to_sink(lab, server.port, sink), lambda: times_to_sink(lab, other.port, other_sink)
    )
    rounds = Rounds(found.ours, found.bare, lambda facts: float(facts["p50_ms"]))
    lost = sum(facts["lost"] + facts["refused"] for facts in rounds.ours)
    worst = max(facts["worst_ms"] for facts in rounds.ours)
    note = f"medians of {REQUESTS} requests, a few ms apart; worst {worst:.1f} ms; {lost} lost or not accepted"
    return row(name, "from idle", "ms to the sink", rounds, not lost, note)


def accepting(lab: Lab, name: str, sides: Sides) -> Iterator[Row]:
    """Almost no email is sent meanwhile, so the brokers grow only by the emails that wait."""
    servers = [server for server, _ in sides]
    for server in servers:
        load_by_role(lab, server.port, {}, WARM_UP)
    before = [sizes_of(server) for server in servers]
    ours, bare = (partial(load_by_role, lab, server.port, {}, ACCEPTED) for server in servers)
    rounds = in_turns(lab.say, ours, bare)
    after = [sizes_of(server) for server in servers]
    met, waiting = all_answered(202, *rounds.ours, *rounds.bare), ACCEPTED * len(rounds.ours)
    note = f"{CONNECTIONS} connections; {rounds.times()}; {'all' if met else 'NOT ALL'} answers are 202"
    yield row(name, "accepts", "requests/s", rounds, met, note)
    for what, words in (("memory", "of the broker's resident memory"), ("disk", "on the broker's disk")):
        grown = [(b[what] - a[what]) / waiting for a, b in zip(before, after, strict=True)]
        sizes = Rounds([{"bytes": grown[0]}], [{"bytes": max(grown[1], 1.0)}], lambda facts: float(facts["bytes"]))
        note = f"the growth by {waiting:,} waiting emails with 200 bytes of text"
        yield row(name, f"a waiting email, {what}", f"bytes {words}", sizes, True, note)


def sizes_of(server: Strategy) -> Facts:
    """The bytes of its broker in memory and on disk."""
    brokers = {pid: role for pid, role in server.roles().items() if role in BROKERS}
    files = [file for role in brokers.values() for file in (server.data_dir / role).rglob("*") if file.is_file()]
    return {"memory": resident_bytes(list(brokers)), "disk": sum(file.stat().st_blocks * 512 for file in files)}


def lines_of_code(name: str) -> Row:
    ours, bare = ([{"lines": sum(map(lines, sources(one)))}] for one in (name, ENGINES[name]))
    note = "lines that are not blank, comments included, without pages: lab/bench/engines.py lists the files"
    return row(name, "code", "lines", Rounds(ours, bare, lambda facts: float(facts["lines"])), True, note)


def sources(name: str) -> set[Path]:
    return {file for pattern in SOURCES[name] for file in ROOT.glob(pattern)}


def lines(file: Path) -> int:
    return sum(1 for line in file.read_text().splitlines() if line.strip())
