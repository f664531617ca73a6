"""What the lab sees of a lane's strategy from outside: its processes, its own counters, the emails it has given up.

`observe` blocks while a process does not answer, so it runs in a thread.
"""

from dataclasses import dataclass, field
from http.client import HTTPException

import psutil
from redis.exceptions import RedisError

from lab.faults.running import Running
from lab.harness.counters import Balance, given_up, queued_at_worker, read_balance
from lab.harness.processes import ChildFailed
from lab.harness.strategies import Strategy

NOT_READABLE = (ChildFailed, OSError, HTTPException, RedisError, psutil.Error, ValueError, KeyError, TypeError)
TAIL_BYTES = 1 << 20


@dataclass(frozen=True)
class SeenProcess:
    role: str
    """As the faults name it: server, worker, master, scheduler, broker, nats."""
    title: str
    """As the log names it."""
    pid: int
    frozen: bool


@dataclass(frozen=True)
class Observation:
    processes: tuple[SeenProcess, ...] = ()
    balance: Balance | None = None
    """None: the counters cannot be read now."""
    problem: str = ""
    given_up: frozenset[str] = field(default=frozenset())


def observe(running: Running, more: list[Strategy]) -> Observation:
    """`more` are further workers of the same strategy."""
    processes = tuple(seen for strategy in (running.strategy, *more) for seen in _processes(running, strategy))
    try:
        balance = read_balance(running)
        if running.subject.number == 4 and not running.subject.query:
            extra = sum(queued_at_worker(each.make.tail(TAIL_BYTES)) for each in more)
            balance = Balance(balance.queued + extra, balance.accepted, balance.done)
        return Observation(processes, balance, "", frozenset(given_up(running)))
    except NOT_READABLE as error:
        return Observation(processes, None, str(error) or type(error).__name__)


def _processes(running: Running, strategy: Strategy) -> list[SeenProcess]:
    """Those of its roles that run now. A process that `make run-N` has started again appears when it has logged."""
    names = {title: role for role, title in running.subject.roles.items()}
    seen = []
    for pid, title in strategy.roles().items():
        try:
            status = psutil.Process(pid).status()
        except psutil.NoSuchProcess:
            continue
        if title in names and status != psutil.STATUS_ZOMBIE:
            seen.append(SeenProcess(names[title], title, pid, status == psutil.STATUS_STOPPED))
    return seen
