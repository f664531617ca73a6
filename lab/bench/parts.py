"""Where the time of one request and of one delivered email goes: µs of CPU time, part by part.

The parts are switched on one after the other, each in a program of its own (lab/load/web_parts.py, mail_parts.py), and
the time of a part is the difference that it makes. All programs are measured in turns, so that another program on this
machine affects all of them. The whole process of the strategy is measured too: `the rest` is what no part has.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median

from rich.box import SIMPLE_HEAD
from rich.table import Table

from lab.bench.accepting import load_by_role
from lab.bench.cost import cpu_of_delivery
from lab.bench.delivering import WARM_UP, WORKERS, deliver
from lab.bench.web import bare_web
from lab.harness.processes import Lab, python
from lab.harness.sinks import LabSink, lab_sink, url_of
from lab.harness.strategies import Strategy, strategy
from lab.harness.valkey import valkey
from lab.load import mail_parts, web_parts

ROUNDS = 5
REQUESTS = 10_000  # in a round, for each part
EMAILS = 5000

REST = "the rest"

Measure = Callable[[], float]
"""Returns the µs of CPU time of a request or email."""


@dataclass(frozen=True)
class Breakdown:
    """µs of CPU time for each part of one request or email."""

    name: str
    parts: dict[str, float]

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def breakdown(lab: Lab, name: str, parts: Sequence[str], programs: Sequence[Measure]) -> Breakdown:
    """The programs have the first part, the first two, and so on; the last one is the whole process."""
    measured: list[list[float]] = [[] for _ in programs]
    for number in range(ROUNDS):
        lab.say(f"round {number + 1} of {ROUNDS}")
        for program, figures in zip(programs, measured, strict=True):
            figures.append(program())
    medians = [0.0, *map(median, measured)]
    return Breakdown(name, {part: b - a for part, (a, b) in zip((*parts, REST), pairwise(medians), strict=True)})


def table(breakdown: Breakdown) -> Table:
    grid = Table(breakdown.name, "CPU µs", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for part, us in (*breakdown.parts.items(), ("in all", breakdown.total)):
        grid.add_row(part, f"{us:.1f}")
    return grid


def accepting_parts(number: int, lab: Lab) -> Iterator[Breakdown]:
    """The web server of strategy 5 or 6, while its worker sends one email a second."""
    with ExitStack() as stack:
        url = stack.enter_context(valkey(lab))
        sink = stack.enter_context(lab_sink(lab))
        throttled = {"EMAILS_PER_SECOND": 1, "DRAIN_SECONDS": 0.1}
        whole = stack.enter_context(strategy(lab, number, url_of(sink), **throttled))
        bare = stack.enter_context(bare_web(lab, "handler", 202))
        servers = [(bare.port, bare.pid)]
        for parts in range(2, len(web_parts.PARTS) + 1):
            command = python("lab.load.web_parts", number, parts)
            child = stack.enter_context(lab.child(command, f"web-{parts}", REDIS_URL=url))
            servers.append((int(child.wait_for(r"^(\d+)\n")), child.process.pid))
        servers.append((whole.port, whole.pid("server") or 0))
        programs = [_web_server(lab, port, pid) for port, pid in servers]
        yield breakdown(lab, f"strategy {number} accepts a request", web_parts.PARTS, programs)


def _web_server(lab: Lab, port: int, pid: int) -> Measure:
    return lambda: load_by_role(lab, port, {pid: "server"}, REQUESTS)["cpu_us"]["server"]


def delivering_parts(number: int, lab: Lab) -> Iterator[Breakdown]:
    """The worker of strategy 3, 5 or 6."""
    with valkey(lab) as url, lab_sink(lab) as sink, strategy(lab, number, url_of(sink)) as whole:
        deliver(lab, whole, sink, WARM_UP)
        names = mail_parts.PARTS[number]
        programs = [_worker_parts(lab, number, parts, sink, url) for parts in range(1, len(names) + 1)]
        programs.append(_whole_worker(lab, whole, sink))
        yield breakdown(lab, f"strategy {number} delivers an email", names, programs)


def _worker_parts(lab: Lab, number: int, parts: int, sink: LabSink, redis_url: str) -> Measure:
    command = ("lab.load.mail_parts", number, parts, EMAILS)
    return lambda: float(lab.measure(*command, SMTP_URL=url_of(sink), REDIS_URL=redis_url)["cpu_us"])


def _whole_worker(lab: Lab, whole: Strategy, sink: LabSink) -> Measure:
    return lambda: float(cpu_of_delivery(lab, whole, sink, EMAILS)["cpu_us"][WORKERS[whole.number]])
