"""What each strategy promises when it is hit: the table that `make faults` holds against what it measures.

Said for every strategy and every fault. `PROMISED` is the reader's copy of what the chapters say; a promise that is
changed here is to be changed there.
"""

from dataclasses import dataclass, field
from enum import Enum


class Bound(Enum):
    NONE = "0"
    UNDER_WAY = "≤ under way"
    """Only emails that were under way when the fault was done: asked for, and not yet sent and acknowledged."""


@dataclass(frozen=True)
class Promise:
    lost: Bound = Bound.NONE
    twice: Bound = Bound.NONE
    failed: bool = False
    """Whether an email may be given up, by its id: in a failed list, parked, or at least in a log."""

    def text(self) -> str:
        failed = " or given up" if self.failed else ""
        return f"lost {self.lost.value}{failed}; twice {self.twice.value}"


@dataclass(frozen=True)
class Subject:
    """What is hit: a strategy, in the way it is used."""

    number: int
    title: str
    roles: dict[str, str]
    """What the faults call a process, and under which name it speaks."""
    query: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    redis: bool = False


SUBJECTS: dict[str, Subject] = {
    "1": Subject(1, "1 foreground", {"server": "server"}),
    "2": Subject(2, "2 parallel", {"server": "server"}),
    "3": Subject(3, "3 local messages", {"server": "web server", "worker": "email worker", "master": "master"}),
    "4": Subject(4, "4 remote messages", {"server": "server", "worker": "worker"}, redis=True),
    "4w": Subject(4, "4 with ?wait=5", {"server": "server", "worker": "worker"}, query="?wait=5", redis=True),
    "5": Subject(5, "5 remote queue", {"server": "server", "worker": "worker", "scheduler": "scheduler"}, redis=True),
    "6": Subject(6, "6 event bus", {"server": "server", "worker": "worker"}, redis=True),
    "6s": Subject(6, "6 on Streams", {"server": "server", "worker": "worker"}, settings={"LOG": "streams"}, redis=True),
}

FAULTS: dict[str, str] = {
    "none": "nothing is done",
    "server-kill": "SIGKILL to the web server",
    "server-term": "SIGTERM to the web server",
    "server-stop": "SIGSTOP to the web server, then SIGCONT",
    "worker-kill": "SIGKILL to the worker",
    "worker-term": "SIGTERM to the worker",
    "worker-stop": "SIGSTOP to the worker for longer than its lease, then SIGCONT",
    "worker-second": "a second worker beside the first for a while",
    "master-kill": "SIGKILL to the master",
    "scheduler-kill": "SIGKILL to the scheduler",
    "all-term": "SIGTERM to all, as by Ctrl-C, and a new start",
    "redis-kill": "SIGKILL to Redis",
    "redis-restart": "SIGTERM to Redis",
    "redis-stop": "SIGSTOP to Redis, then SIGCONT",
    "redis-full": "Redis is out of memory for a while",
    "redis-tail": "SIGKILL to Redis, and what it has written last is cut off",
    "smtp-kill": "SIGKILL to the mail server, which comes back",
    "smtp-term": "SIGTERM to the mail server, which comes back",
    "smtp-stop": "SIGSTOP to the mail server, then SIGCONT",
    "smtp-451": "the mail server says 451 to every other email",
    "smtp-550": "the mail server says 550 to every other email",
    "smtp-hang": "the mail server answers nothing any more",
    "smtp-lose-reply": "the mail server takes every other email and cuts the connection before its 250",
}

NONE, UNDER_WAY = Bound.NONE, Bound.UNDER_WAY
REPEATED = ("worker-kill", "worker-stop", "smtp-kill", "smtp-term", "smtp-stop", "smtp-hang", "smtp-lose-reply")
"""After these it is not known whether an email was sent, and who keeps it sends it again."""


def faults_of(subject: Subject) -> list[str]:
    """Those that can be done to it."""
    there = {"none", "all", "smtp", *subject.roles, *(["redis"] if subject.redis else [])}
    return [fault for fault in FAULTS if fault.partition("-")[0] in there and (fault, subject.number) not in POINTLESS]


POINTLESS = {("redis-tail", 4), ("worker-second", 3)}
"""Nothing of a published message is ever in Redis's file; and the master has one worker."""


def promise(subject: str, fault: str) -> Promise:
    who = fault.partition("-")[0]
    if fault == "worker-second" and SUBJECTS[subject].number == 4:  # every subscriber sends its copy
        return Promise(twice=UNDER_WAY)
    if subject in ("1", "4w"):  # a 2xx says that the mail server has taken it
        return Promise()
    if subject == "2":
        return Promise(lost=UNDER_WAY if fault == "server-kill" or who == "smtp" else NONE)
    twice = UNDER_WAY if fault in REPEATED else NONE
    if subject == "3":
        lost = UNDER_WAY if fault == "master-kill" else NONE
    elif subject == "4":
        lost = UNDER_WAY if fault in ("worker-kill", "redis-kill", "redis-restart") else NONE
    else:
        lost = NONE
        twice = UNDER_WAY if who == "redis" else twice
    return Promise(lost, twice, failed=who == "smtp")
